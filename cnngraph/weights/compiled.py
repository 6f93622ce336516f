"""Compiled networks in files, which contain a spec and weights but no code.

A file contains the arguments of `compile` (the text of all spec files, params and options) and the
`state_dict`. Loading compiles the texts, so files survive changes of the compiler, and an untrusted
file is as safe to read as a spec: all of it is checked, and the network is compared with the size
of the file, before the network is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch
from torch import Tensor, nn

from cnngraph import __version__
from cnngraph.atomic_write import atomic_write, printable
from cnngraph.compiler import compile_graph
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError, Source, fail, listing
from cnngraph.graph import Graph
from cnngraph.graph.features import select
from cnngraph.lowering.network import Compilation, InferenceNetwork, Network
from cnngraph.options import Backend, Options
from cnngraph.passes import passes_of
from cnngraph.spec.loader import load_spec
from cnngraph.spec.spec import Spec
from cnngraph.weights.files import unusual
from cnngraph.weights.torch_files import ZIP_START, load, open_file, readable, save
from cnngraph.weights.unpickle import RefusedTensor

MARK = "cnngraph compiled network"
FORMAT = 2
"""Increased when earlier versions cannot read the files of this version."""

_CONTENTS = {
    "cnngraph": str, "files": dict, "main": str, "params": dict, "outputs": list, "backend": str,
    "memory": str, "batch_size": int, "disable_passes": list, "state_dict": dict,
}  # fmt: skip
_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64}

_MOST_CHARACTERS = 1_000
_MOST_DEPTH = 50
_MOST_ITEMS = 1_000_000
"""Of the contents, with everything that appears several times counted as often."""

_MOST_GROWTH = 8
"""How many times larger than its file a network may be. A file of bfloat16 has half the size."""

_SMALL_NETWORK = 2_000
_LEAST_BYTES_OF_NODE = 100
"""A file has many more bytes for each node, as most nodes have weights or follow one that has.

A file of another network, which shares its weights, for example, is padded to this size.
"""

_OTHER_ENDINGS = {
    ".safetensors": "weights: use `save_weights`",
    ".yaml": "specs",
    ".yml": "specs",
    ".json": "JSON",
    ".md": "Markdown",
    ".py": "Python",
    ".onnx": "ONNX",
}


def save_compiled(net: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a compiled network to a file for `load_compiled`.

    The file contains the text of the spec, the params and options that the network was compiled
    with, and its `state_dict`. Modules replaced in Python and `requires_grad` are not stored. The
    file is written atomically.

    Raises:
        CnngraphError: the network was not made by `compile`, its weights no longer fit its spec,
            the ending of `path` belongs to another format, or the file cannot be written.
    """
    _require_ending(path)
    contents = packed(net)
    atomic_write(path, lambda file: save(contents, file), faults=(RuntimeError,))


def packed(net: nn.Module) -> dict[str, Any]:
    """What `save_compiled` writes, as plain data and tensors. Raises `CnngraphError` likewise."""
    compilation = _compilation(net)
    _require_fit(net, compilation.graph)
    files, main = _texts(compilation.spec)
    options = compilation.options
    nodes = sum(1 for _ in compilation.graph.leaves())
    padding = _LEAST_BYTES_OF_NODE * max(0, nodes - _SMALL_NETWORK)
    return {
        "format": MARK,
        "version": FORMAT,
        "cnngraph": __version__,
        "files": files,
        "main": main,
        "params": {name: _plain(name, value) for name, value in compilation.params.items()},
        "outputs": list(options.outputs),
        "backend": options.backend,
        "memory": options.memory,
        "batch_size": options.batch_size,
        "disable_passes": list(options.disable_passes),
        "state_dict": net.state_dict(),
        "padding": torch.zeros(padding, dtype=torch.uint8),
    }


def load_compiled(
    path: str | os.PathLike[str], *, backend: Backend | None = None, allow_code: bool = False
) -> Network:
    """Loads a network written by `save_compiled`: on the CPU, in training mode.

    Args:
        path: the file.
        backend: the backend to compile for, instead of the one it was saved with.
        allow_code: allows its spec to import classes, with `module`. Its plugins are not in the
            file: import them first.

    Raises:
        CnngraphError: the file cannot be read, is damaged, or is not a compiled network.
        SpecError: its spec is invalid here, for example because a plugin is not installed.
    """
    return unpacked(read_packed(path), path, backend=backend, allow_code=allow_code)


def unpacked(
    contents: dict[str, Any],
    path: str | os.PathLike[str],
    *,
    backend: Backend | None = None,
    allow_code: bool = False,
) -> Network:
    """The network of what `read_packed` found in the file at `path`; see `load_compiled`."""
    size = os.stat(path).st_size
    options = _options(contents, backend)
    passes_of(options)
    spec = _spec(contents, Path(os.path.realpath(path)), os.fspath(path), allow_code)
    params = {name: _tuples(value) for name, value in contents["params"].items()}
    graph = elaborate_or_raise(spec, params)
    state: dict[str, Tensor] = contents["state_dict"]
    kept = select(graph, options.outputs) if options.outputs else graph
    if problems := _misfits(kept, {name: tuple(value.shape) for name, value in state.items()}):
        raise _damaged(path, f"its weights do not fit its spec: {listing(problems)}")
    _require_proportion(path, kept, state, size)
    # The initial weights are replaced: they must not advance the caller's generator.
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        net = compile_graph(spec, params, graph, options)
    for name, initial in net.state_dict().items():
        if state[name].dtype.is_floating_point != initial.dtype.is_floating_point:
            raise _damaged(path, f"`{name}` has numbers of another kind: {state[name].dtype}")
    net.load_state_dict(state, assign=True)
    return net


def _require_ending(path: str | os.PathLike[str]) -> None:
    """Raises `CnngraphError` if the ending of `path` belongs to another format."""
    ending = Path(path).suffix.lower()
    if ending in _OTHER_ENDINGS:
        raise CnngraphError(
            f"cannot write a compiled network to {os.fspath(path)}: {ending} is for"
            f" {_OTHER_ENDINGS[ending]} (use .pt)"
        )


# --- saving ---------------------------------------------------------------------------------------


def _compilation(net: nn.Module) -> Compilation:
    if isinstance(net, InferenceNetwork):
        raise CnngraphError(
            "cannot save a network made by `for_inference`: save the network it was made from, and"
            " call `for_inference` after loading"
        )
    if not isinstance(net, Network):
        raise CnngraphError(
            f"cannot save this {type(net).__name__}: it was not made by `cnngraph.compile`"
            " (of a wrapper, save the wrapped network: `net.module` of DistributedDataParallel,"
            " `net._orig_mod` of torch.compile)"
        )
    return net.compilation


def _require_fit(net: nn.Module, graph: Graph) -> None:
    """Raises unless the network has exactly the weights of its spec."""
    found = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if problems := _misfits(graph, found):
        raise CnngraphError(
            f"cannot save this network: its weights no longer fit its spec: {listing(problems)}."
            " Compile a spec of the changed network, or use `save_weights`"
        )


def _misfits(graph: Graph, found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """How a `state_dict` of these shapes differs from that of a graph: the first differences."""
    shapes = dict(graph.inputs)
    expected: dict[str, tuple[int, ...]] = {}
    for leaf in graph.leaves():
        shapes[leaf.path] = leaf.shape
        if leaf.shared:
            continue
        inputs = [shapes[path] for path in leaf.inputs]
        tensors = {**leaf.op.parameters(*inputs), **leaf.op.buffers(*inputs)}
        expected |= {
            f"{leaf.path}.{name}" if name else leaf.path: tuple(shape)
            for name, shape in tensors.items()
        }
    problems = [
        f"`{printable(name)}` is missing" if name not in found
        else f"`{printable(name)}` is not in the spec" if name not in expected
        else f"`{name}` has the shape {_shape(found[name])}, in the spec {_shape(expected[name])}"
        for name in dict.fromkeys((*expected, *found))
        if found.get(name) != expected.get(name)
    ]  # fmt: skip
    return [*problems[:3], f"{len(problems) - 3} more"] if len(problems) > 4 else problems


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single value"


def _texts(spec: Spec) -> tuple[dict[str, str], str]:
    """The text of each file by its path below their common folder, and the path of the spec."""
    root = os.path.commonpath([file.parent for file in spec.files])
    names = {file: file.relative_to(root).as_posix() for file in spec.files}
    main = next(
        names[file] for file, source in spec.files.items() if source == spec.position.source
    )
    return {names[file]: source.text for file, source in spec.files.items()}, main


def _plain(name: str, value: Any) -> Any:
    """The value of a param as plain data."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {str(key): _plain(name, item) for key, item in pairs}
    raise CnngraphError(
        f"cannot save this network: its param `{name}` contains a value of type"
        f" {type(value).__name__}, which a spec cannot contain"
    )


def _tuples(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(map(_tuples, cast("list[Any]", value)))


# --- loading --------------------------------------------------------------------------------------


def read_packed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a file, checked as far as possible without its spec. See `load_compiled`."""
    name = printable(os.fspath(path))
    unpacked = _unpack(path)
    with readable(path, CnngraphError):
        _require_plain(path, unpacked)
    contents = cast("dict[str, Any]", unpacked) if isinstance(unpacked, dict) else {}
    mark = contents.get("format")
    if not isinstance(mark, str) or mark != MARK:
        raise CnngraphError(f"{name} is a PyTorch file, but not a network compiled by cnngraph")
    version = contents.get("version")
    if type(version) is not int or version != FORMAT:
        raise CnngraphError(
            f"{name} was written by cnngraph {printable(str(contents.get('cnngraph')))}, in format"
            f" {printable(str(version))};"
            f" this is cnngraph {__version__}, which reads format {FORMAT}: {_advice(version)}"
        )
    for key, kind in _CONTENTS.items():
        if type(contents.get(key)) is not kind:
            raise _damaged(path, f"it has no `{key}`")
        if kind is str and len(contents[key]) > _MOST_CHARACTERS:
            raise _damaged(path, f"its `{key}` is longer than {_MOST_CHARACTERS:,} characters")
        if kind is dict and not all(isinstance(name, str) for name in contents[key]):
            raise _damaged(path, f"its `{key}` has keys that are not strings")
    texts: dict[str, Any] = contents["files"]
    if contents["main"] not in texts or not all(isinstance(text, str) for text in texts.values()):
        raise _damaged(path, "its spec is missing")
    for key in ("outputs", "disable_passes"):
        if not all(isinstance(name, str) for name in contents[key]):
            raise _damaged(path, f"its `{key}` are not all strings")
    for name, value in contents["state_dict"].items():
        reason = unusual(value)
        if not reason and value.dtype not in _DTYPES:
            reason = f"has numbers of an uncommon kind: {value.dtype}"
        if reason:
            raise _damaged(path, f"`{printable(name)}` {reason}")
    return contents


def _require_plain(path: str | os.PathLike[str], contents: Any) -> None:
    """Raises unless the contents are a tree of tensors and plain data, neither deep nor endless."""
    items: list[tuple[Any, int]] = [(contents, 0)]
    for _ in range(_MOST_ITEMS):
        if not items:
            return
        item, depth = items.pop()
        if isinstance(item, dict):
            mapping = cast("dict[Any, Any]", item)
            inside: list[Any] = [*mapping.keys(), *mapping.values()]
        elif isinstance(item, list | tuple):
            inside = list(cast("Sequence[Any]", item))
        elif isinstance(item, str):
            item.encode()  # UnicodeEncodeError: it could not be printed
            continue
        elif item is None or isinstance(item, bool | int | float | Tensor | RefusedTensor):
            continue
        else:
            raise _damaged(path, "it contains something else than tensors and plain data")
        if depth == _MOST_DEPTH or len(items) + len(inside) > _MOST_ITEMS:
            break
        items += ((value, depth + 1) for value in inside)
    raise _damaged(path, "its contents are nested too deeply, or have too many items")


def _require_proportion(
    path: str | os.PathLike[str], graph: Graph, state: Mapping[str, Tensor], size: int
) -> None:
    """Raises if the network is much larger than its file, before it is made."""
    needed = sum(4 * value.numel() for value in state.values())
    if needed > _MOST_GROWTH * size:
        raise _damaged(path, f"it has {size:,} bytes, but the weights of its network {needed:,}")
    nodes = sum(1 for _ in graph.leaves())
    if nodes > _SMALL_NETWORK + size // _LEAST_BYTES_OF_NODE:
        raise _damaged(path, f"it has {size:,} bytes, but its network {nodes:,} nodes")


def _advice(version: Any) -> str:
    if isinstance(version, int) and version > FORMAT:
        return "install a newer cnngraph to read it"
    return "recompile its spec"


def _unpack(path: str | os.PathLike[str]) -> Any:
    with readable(path, CnngraphError), open_file(path, CnngraphError) as file:
        start = file.read(len(ZIP_START))
        if not ZIP_START.startswith(start):
            raise CnngraphError(
                f"{printable(os.fspath(path))} is not a network compiled by cnngraph"
            )
        if start != ZIP_START:
            raise EOFError
        return load(file)


def _options(contents: dict[str, Any], backend: Backend | None) -> Options:
    """The saved options; the memory policy and disabled passes only for the saved backend."""
    saved = Options(
        tuple(contents["outputs"]),
        contents["backend"],
        contents["memory"],
        contents["batch_size"],
        tuple(contents["disable_passes"]),
    )
    asked = Options(saved.outputs, backend or saved.backend)
    return saved if asked.backend == saved.backend else asked


def _spec(contents: dict[str, Any], root: Path, name: str, allow_code: bool) -> Spec:
    """The spec, from the texts in the file; imports open no other file.

    The texts get paths below the path of the file itself, where no other file can exist.
    """
    texts = {
        root.joinpath(*PurePosixPath(key).parts): text for key, text in contents["files"].items()
    }

    def read(path: Path, shown: str) -> Source:
        if path not in texts:
            raise fail("E001", f"{name} does not contain {shown}")
        return Source(shown, texts[path])

    main = root.joinpath(*PurePosixPath(contents["main"]).parts)
    return load_spec(main, Source(f"{name}/{contents['main']}", texts[main]), read, allow_code)


def _damaged(path: str | os.PathLike[str], problem: str) -> CnngraphError:
    return CnngraphError(f"{printable(os.fspath(path))} is damaged: {problem}")
