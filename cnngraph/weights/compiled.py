"""Compiled networks as files: the text of the spec and the weights, never code.

A file holds what `compile` was given (all spec files' text, params, options) and the `state_dict`. Loading compiles the
texts again, so a file outlives changes of the compiler, and reading one from a stranger is as safe as reading a spec.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from cnngraph import __version__
from cnngraph.atomic_write import atomic_write, one_line
from cnngraph.compiler import compile_spec
from cnngraph.errors import CnngraphError, Source, fail, listing
from cnngraph.graph import INPUT, Graph
from cnngraph.lowering.network import Compilation, Network
from cnngraph.options import Backend, Options
from cnngraph.spec.loader import Spec, load_spec

MARK = "cnngraph compiled network"
FORMAT = 2
"""Raised whenever a file written by this version cannot be read by the one before."""

_CONTENTS = {
    "cnngraph": str, "files": dict, "main": str, "params": dict, "outputs": list, "backend": str, "memory": str, "batch_size": int, "disable_passes": list, "state_dict": dict,
}  # fmt: skip
_ZIP_START = b"PK\x03\x04"
_FOLDER = 0x10
"""The bit in a zip entry's attributes that says it is a folder."""


def save_compiled(net: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes a compiled network to a file that `load_compiled` reads.

    The file holds the spec's text, the params, outputs and other options it was compiled with, and the network's weights and buffers
    with their dtypes. Changes made to `net.graph` by hand are not part of it, nor is `requires_grad`. The file appears
    whole or not at all: one that was there before is replaced only when the new one is complete.

    Raises:
        CnngraphError: the network was not made by `compile`, its weights no longer fit its spec, or the file cannot
            be written.
    """
    compilation = _compilation(net)
    _require_fit(net, compilation.graph)
    files, main = _texts(compilation.spec)
    options = compilation.options
    contents = {
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
    }
    # RuntimeError: torch's zip writer, where the file system refuses.
    atomic_write(path, lambda file: torch.save(contents, file), faults=(RuntimeError,))


def load_compiled(path: str | os.PathLike[str], *, backend: Backend | None = None) -> Network:
    """The network that `save_compiled` wrote, with its weights, on the CPU and in training mode.

    Args:
        path: the file.
        backend: compile for this one instead of the one the network was saved with; the weights fit both.

    Raises:
        CnngraphError: the file cannot be read, is damaged, or is not a compiled network; `SpecError` where its spec
            does not hold here (it may use an op of a plugin that is not installed).
    """
    contents = _read(path)
    spec = _spec(contents, Path(os.path.realpath(path)), os.fspath(path))
    params = {name: _tuples(value) for name, value in contents["params"].items()}
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: the caller's seed is not used up
        net = compile_spec(spec, params, _options(contents, backend))
    try:
        net.load_state_dict(contents["state_dict"], assign=True)
    except RuntimeError as error:
        raise _damaged(path, f"its weights do not fit its spec: {one_line(error)}") from None
    return net


# --- what is saved ---------------------------------------------------------------------------------------------------


def _compilation(net: nn.Module) -> Compilation:
    if not isinstance(net, Network):
        raise CnngraphError(
            f"cannot save this {type(net).__name__}: it is not a network made by `cnngraph.compile`"
            " (save what a wrapper holds: `net.module` of DistributedDataParallel, `net._orig_mod` of torch.compile)"
        )
    return net.compilation


def _require_fit(net: nn.Module, graph: Graph) -> None:
    """Raises unless the network holds just the weights its spec asks for."""
    shapes = {INPUT: graph.input}
    expected: dict[str, tuple[int, ...]] = {}
    for leaf in graph.leaves():
        shapes[leaf.path] = leaf.shape
        inputs = [shapes[path] for path in leaf.inputs]
        held = {**leaf.op.parameters(*inputs), **leaf.op.buffers(*inputs)}
        expected |= {f"{leaf.path}.{name}" if name else leaf.path: tuple(shape) for name, shape in held.items()}
    found = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    problems = [
        f"`{name}` is missing" if name not in found
        else f"`{name}` is not in the spec" if name not in expected
        else f"`{name}` has the shape {_shape(found[name])}, the spec gives {_shape(expected[name])}"
        for name in dict.fromkeys((*expected, *found))
        if found.get(name) != expected.get(name)
    ]  # fmt: skip
    if problems:
        shown = [*problems[:3], f"{len(problems) - 3} more"] if len(problems) > 4 else problems
        raise CnngraphError(
            f"cannot save this network: it was changed after it was compiled, and its weights no longer fit its spec: "
            f"{listing(shown)}. Change the spec or its params and compile that, or save the `state_dict`"
        )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one value"


def _texts(spec: Spec) -> tuple[dict[str, str], str]:
    """Every file's text by its path under the folder common to all, and which one is the spec itself."""
    root = os.path.commonpath([file.parent for file in spec.files])
    names = {file: file.relative_to(root).as_posix() for file in spec.files}
    main = next(names[file] for file, source in spec.files.items() if source == spec.position.source)
    return {names[file]: source.text for file, source in spec.files.items()}, main


def _plain(name: str, value: Any) -> Any:
    """A param's value as plain data."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(name, item) for key, item in value.items()}
    raise CnngraphError(
        f"cannot save this network: its param `{name}` holds a value of type {type(value).__name__}, which no spec can spell"
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


# --- what is loaded --------------------------------------------------------------------------------------------------


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of a file, checked as far as they can be without compiling."""
    name = os.fspath(path)
    contents = _unpack(path)
    if not isinstance(contents, dict) or contents.get("format") != MARK:
        raise CnngraphError(f"{name} is a PyTorch file, but not a network compiled by cnngraph")
    version = contents.get("version")
    if version != FORMAT:
        raise CnngraphError(
            f"{name} was made by cnngraph {contents.get('cnngraph')}, in format {version}; this is cnngraph {__version__},"
            f" which reads format {FORMAT}: {_advice(version)}"
        )
    for key, kind in _CONTENTS.items():
        if not isinstance(contents.get(key), kind):
            raise _damaged(path, f"it has no `{key}`")
        if kind is dict and not all(isinstance(name, str) for name in contents[key]):
            raise _damaged(path, f"its `{key}` holds names that are no text")
    texts = contents["files"]
    if contents["main"] not in texts or not all(isinstance(item, str) for pair in texts.items() for item in pair):
        raise _damaged(path, "it does not hold its spec")
    return contents


def _advice(version: Any) -> str:
    if isinstance(version, int) and version > FORMAT:
        return "install a newer cnngraph to read it"
    return "compile its spec again"


def _unpack(path: str | os.PathLike[str]) -> Any:
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_ZIP_START))
        if not _ZIP_START.startswith(start):
            raise CnngraphError(f"{name} is not a network compiled by cnngraph")
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER]
        if broken is not None:
            raise _damaged(path, f"the checksum of {broken} does not hold")
        if folders:
            raise _damaged(path, f"{folders[0]} is marked as a folder")  # torch would read no bytes of it
        return torch.load(path, map_location="cpu", weights_only=True)
    except CnngraphError:
        raise
    except (zipfile.BadZipFile, EOFError):
        raise _damaged(path, "it was cut short") from None
    except OSError as error:
        problem = {FileNotFoundError: "it does not exist", IsADirectoryError: "it is a folder"}.get(type(error))
        raise CnngraphError(f"cannot read {name}: {problem or error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise CnngraphError(
            f"{name} is refused: it holds things other than data, which could run code when read"
        ) from None
    except Exception as error:  # whatever a damaged file makes the readers of zip and pickle stumble over
        raise _damaged(path, one_line(error)) from None


def _options(contents: dict[str, Any], backend: Backend | None) -> Options:
    """The memory policy and the passes turned off are those of the backend it was saved with, and of no other."""
    saved = Options(
        tuple(contents["outputs"]), contents["backend"],
        contents["memory"], contents["batch_size"], tuple(contents["disable_passes"]),
    )  # fmt: skip
    asked = Options(saved.outputs, backend or saved.backend)
    return saved if asked.backend == saved.backend else asked


def _spec(contents: dict[str, Any], root: Path, name: str) -> Spec:
    """The spec, read from the texts in the file; nothing else is ever opened, whatever they import.

    The texts stand at paths below the file's own, where no other file can be.
    """
    texts = {root.joinpath(*PurePosixPath(key).parts): text for key, text in contents["files"].items()}

    def read(path: Path, shown: str) -> Source:
        if path not in texts:
            raise fail("E001", f"{name} holds no {shown}")
        return Source(shown, texts[path])

    main = root.joinpath(*PurePosixPath(contents["main"]).parts)
    return load_spec(main, Source(f"{name}/{contents['main']}", texts[main]), read)


def _damaged(path: str | os.PathLike[str], problem: str) -> CnngraphError:
    return CnngraphError(f"{os.fspath(path)} is damaged: {problem}")
