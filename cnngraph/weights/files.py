"""Files of weights: safetensors and `torch.save`. Reading them never runs code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from cnngraph import __version__
from cnngraph.atomic_write import atomic_write, printable
from cnngraph.errors import CnngraphError
from cnngraph.lowering.network import Network
from cnngraph.weights.patterns import unwrapped
from cnngraph.weights.report import WeightsError
from cnngraph.weights.torch_files import (
    PLAIN_OBJECTS,
    ZIP_START,
    load,
    open_file,
    readable,
    save,
)
from cnngraph.weights.unpickle import DTYPES, RefusedTensor

CHECKPOINT_KEYS = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights",
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema",
)  # fmt: skip
"""Keys under which training scripts store weights. The first that a file has is read."""

COUNT = "n_averaged"
"""The counter of `torch.optim.swa_utils.AveragedModel`."""

MOST_TENSORS = 300_000
MOST_CHARACTERS = 1_000
"""Of the name of a tensor."""

_MOST_NESTED = 10
"""Checkpoints in checkpoints; a file may contain itself."""

_ORDER = "modules"
_SUFFIXES = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Weights:
    """The tensors of a file.

    Attributes:
        name: the file in messages.
        tensors: key -> tensor.
        ordered: whether the tensors are in the order of the network they come from.
        kinds: module -> name of its class, if the file records it.
        notes: what was done to the contents of the file.
    """

    name: str
    tensors: dict[str, Tensor]
    ordered: bool = True
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()


def save_weights(net: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes weights and buffers to a file that `load_weights` and other tools can read.

    The metadata of a safetensors file contains the name of the network, the version of cnngraph,
    and the order and classes of the modules, which `load_weights(..., transfer=True)` uses. Tensors
    that share memory are each written in full. The file is written atomically.

    Args:
        net: the network, which may be wrapped in `DataParallel`, `DistributedDataParallel` or
            `torch.compile`.
        path: the file. Its suffix selects the format: `.safetensors`, or `.pt` or `.pth` for a
            `state_dict` by `torch.save`.

    Raises:
        WeightsError: another suffix, or the file cannot be written.
    """
    net = unwrapped(net)
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise WeightsError(
            f"cannot write weights to {os.fspath(path)}: its name must end in .safetensors, .pt or"
            " .pth"
        )
    state = net.state_dict()
    for key, value in state.items():
        reason = unusual(value)
        if not reason and suffix != ".safetensors" and value.dtype not in DTYPES.values():
            reason = f"is of {value.dtype}, which only .safetensors files can have"
        if reason:
            raise WeightsError(f"cannot write {os.fspath(path)}: `{key}` {reason}")
    if suffix != ".safetensors":
        # torch.save writes the single value of an expanded tensor, not all of its numbers.
        dense = {
            key: value.clone() if value.nbytes > value.untyped_storage().nbytes() else value
            for key, value in state.items()
        }
        _write(path, lambda file: save(dense, file))
        return
    tensors = {
        key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()
    }
    metadata = {
        "format": "pt",
        "network": network_name(net),
        "cnngraph": __version__,
        _ORDER: json.dumps(module_kinds(net, tensors)),
    }
    _write(path, lambda file: file.write_bytes(as_safetensors(tensors, metadata)))


def unusual(value: Any) -> str:
    """Why a value is not a dense tensor of real numbers; empty if it is one."""
    if not isinstance(value, Tensor):
        return "is not a tensor"
    if value.is_meta:
        return "is on the meta device and has no values"
    if value.layout is not torch.strided or value.is_quantized or value.is_complex():
        return f"is not an ordinary tensor: it is {value.layout} of {value.dtype}"
    return ""


def network_name(net: nn.Module) -> str:
    """The name of a network in messages and files."""
    return net.compilation.graph.name if isinstance(net, Network) else type(net).__name__


def module_kinds(net: nn.Module, keys: Mapping[str, Any]) -> dict[str, str]:
    """Path -> name of the class, for all modules that own one of the keys, in order."""
    paths = dict.fromkeys(key.rpartition(".")[0] for key in keys)
    modules = dict(net.named_modules(remove_duplicate=False))  # pyright: ignore[reportUnknownArgumentType]
    return {path: type(modules[path]).__name__ if path in modules else "" for path in paths}


def _write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    try:
        # of torch's writer; of safetensors, for a full disk or a dtype
        atomic_write(path, write, faults=(RuntimeError, SafetensorError, KeyError))
    except CnngraphError as error:
        raise WeightsError(str(error)) from None


# --- reading --------------------------------------------------------------------------------------


def read_weights(path: str | os.PathLike[str], key: str | None = None) -> Weights:
    """Reads the tensors of a file with any suffix.

    Args:
        path: the file.
        key: the entry of a checkpoint to read. If not given, see `CHECKPOINT_KEYS`.

    Raises:
        WeightsError: the file cannot be read, is damaged, could run code, or has no weights.
    """
    name = printable(os.fspath(path))
    trust = (
        "; if you trust the file, pass the state_dict of torch.load(..., weights_only=False) to"
        " load_weights"
    )
    with readable(path, WeightsError, trust), open_file(path, WeightsError) as file:
        start = file.read(9)
        if start[8:9] == b"{":
            return _read_safetensors(path)
        if len(start) < 9 or not (start.startswith(ZIP_START) or start[0] == 0x80):
            raise WeightsError(
                f"{name} has no weights: it was written neither by safetensors nor by torch.save"
            )
        contents = load(file, PLAIN_OBJECTS)
    return from_mapping(contents, name, key)


def _read_safetensors(path: str | os.PathLike[str]) -> Weights:
    name = os.fspath(path)
    opened: Any = safe_open(name, framework="pt")
    with opened as file:
        _require_bounded(name, file.keys())
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata: dict[str, str] = file.metadata() or {}
    kinds = _kinds(metadata)
    if not tensors and _ORDER not in metadata:
        raise WeightsError(f"{name} has no weights: it is empty")
    order = {module: index for index, module in enumerate(kinds)}
    ordered = all(key.rpartition(".")[0] in order for key in tensors)
    if ordered:
        keys = sorted(tensors, key=lambda key: order[key.rpartition(".")[0]])
    else:
        keys = sorted(tensors, key=_natural)
    return Weights(name, {key: tensors[key] for key in keys}, ordered, kinds)


def _kinds(metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        data = json.loads(metadata.get(_ORDER, "{}"))
    except (ValueError, RecursionError):
        return {}
    kinds = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    return {path: str(kind) for path, kind in kinds.items()}


def _require_bounded(name: str, keys: Iterable[str]) -> None:
    """Raises for names that no network has and that would take long to compare."""
    keys = list(keys)
    if len(keys) > MOST_TENSORS:
        raise WeightsError(f"{name} has {len(keys):,} tensors: more than {MOST_TENSORS:,}")
    if any(len(key) > MOST_CHARACTERS for key in keys):
        raise WeightsError(f"{name} has a name of more than {MOST_CHARACTERS:,} characters")
    if odd := next((key for key in keys if not key.isprintable()), None):
        raise WeightsError(f"{name} has a name that cannot be printed: {printable(odd)}")


def _natural(key: str) -> list[tuple[int, str]]:
    """Sorts numbers by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]


def from_mapping(contents: Any, name: str, key: str | None = None) -> Weights:
    """The tensors of a state dict, or of a checkpoint that contains one.

    Raises:
        WeightsError: there are no tensors, no entry `key`, or several entries to choose from.
    """
    notes: list[str] = []
    for _ in range(_MOST_NESTED):
        if not isinstance(contents, Mapping):
            break
        contents = cast("Mapping[Any, Any]", contents)
        found = _entries(contents)
        taken = key if key is not None else _choice(contents, found, name)
        if taken is None:
            break
        if not isinstance(contents.get(taken), Mapping):
            raise WeightsError(f"{name} has no weights under `{taken}`: {_overview(contents)}")
        others = " or ".join(f"`{other}`" for other in found if other != taken)
        choice = f"; key=... reads {others} instead" if others and key is None else ""
        notes.append(f"read from `{taken}` of the file{choice}")
        contents, key = contents[taken], None
    if not isinstance(contents, Mapping):
        kind = type(contents).__name__
        raise WeightsError(f"{name} has no weights: it contains a {kind}, not a state_dict")
    contents = cast("Mapping[Any, Any]", contents)
    for entry, value in contents.items():
        if isinstance(value, RefusedTensor):
            raise WeightsError(f"cannot load {name}: `{_shown(entry)}` is a {value.kind} tensor")
    tensors = {str(key): value for key, value in contents.items() if isinstance(value, Tensor)}
    if not tensors and (contents or notes):
        raise WeightsError(f"{name} has no weights: {_overview(contents)}")
    _require_bounded(name, tensors)
    others = [_shown(key) for key, value in contents.items() if not isinstance(value, Tensor)]
    if others:
        listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        notes.append(f"ignored entries that are not tensors: {listed}")
    return Weights(name, tensors, notes=tuple(notes))


def _entries(contents: Mapping[Any, Any]) -> list[str]:
    """The entries that may be the weights of a network, the known keys first."""
    known = [key for key in CHECKPOINT_KEYS if _has_tensors(contents.get(key))]
    return known or [
        key
        for key, value in contents.items()
        if isinstance(key, str)
        and isinstance(value, Mapping)
        and any(isinstance(item, Tensor) for item in cast("Mapping[Any, Any]", value).values())
    ]


def _choice(contents: Mapping[Any, Any], found: list[str], name: str) -> str | None:
    """The entry to read, or None if the contents are a state dict themselves."""
    if not found or found[0] in CHECKPOINT_KEYS:
        return found[0] if found else None
    if any(isinstance(value, Tensor) for value in contents.values()):
        return None
    if len(found) > 1:
        choice = " or ".join(f'key="{key}"' for key in found)
        raise WeightsError(f"{name} has several state dicts: choose one with {choice}")
    return found[0]


def _has_tensors(value: Any) -> bool:
    """Whether a state dict is in here, at any depth."""
    mappings, seen = [value], {id(value)}  # a file may contain itself
    while mappings:
        mapping = mappings.pop()
        if not isinstance(mapping, Mapping):
            continue
        for key, item in cast("Mapping[Any, Any]", mapping).items():
            if isinstance(item, Tensor | RefusedTensor):
                return True
            if isinstance(key, str) and id(item) not in seen:
                seen.add(id(item))
                mappings.append(item)
    return False


def _shown(key: Any) -> str:
    return printable(str(key))


def _overview(contents: Mapping[Any, Any]) -> str:
    keys = ", ".join(map(_shown, list(contents)[:8]))
    return f"its keys are {keys}" if keys else "it is empty"
