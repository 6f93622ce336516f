"""Files of weights: safetensors, and what `torch.save` wrote. Nothing read here can run code."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cnngraph import __version__
from cnngraph.atomic_write import atomic_write, one_line
from cnngraph.errors import CnngraphError
from cnngraph.lowering.network import Network
from cnngraph.weights.patterns import unwrapped
from cnngraph.weights.report import WeightsError

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys of a training checkpoint that hold the weights, in the order they are looked for."""

_ORDER = "modules"
_SUFFIXES = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Weights:
    """The tensors of a file.

    Attributes:
        name: what messages call it.
        ordered: whether the order of the tensors is that of the network they come from.
        kinds: module -> name of its class, where the file says it.
    """

    name: str
    tensors: dict[str, Tensor]
    ordered: bool = True
    kinds: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def save_weights(net: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes the network's weights and buffers to a file that `load_weights`, and every other tool,
    reads.

    Args:
        net: the network; of `DataParallel`, `DistributedDataParallel` or `torch.compile`, what they
            wrap.
        path: its suffix says the format: `.safetensors`, or `.pt` or `.pth` for a `state_dict` by
            `torch.save`. A safetensors file also says the network's name, the version of cnngraph,
            and the order and class of the modules, which `load_weights(..., transfer=True)` makes
            use of. Tensors that share memory are written in full each. The file appears whole or
            not at all.

    Raises:
        WeightsError: the suffix is another one, or the file cannot be written.
    """
    net = unwrapped(net)
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise WeightsError(
            f"cannot tell the format of {os.fspath(path)}: let its name end in .safetensors, or "
            f"in .pt or .pth"
        )
    state = net.state_dict()
    if meta := next((key for key, value in state.items() if value.is_meta), None):
        raise WeightsError(
            f"cannot write {os.fspath(path)}: `{meta}` has no values yet, it is on the meta device"
        )
    if suffix != ".safetensors":
        _write(path, lambda file: torch.save(state, file))
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
    _write(path, lambda file: save_file(tensors, file, metadata))


def network_name(net: nn.Module) -> str:
    """What messages and files call a network."""
    return net.compilation.graph.name if isinstance(net, Network) else type(net).__name__


def module_kinds(net: nn.Module, keys: Mapping[str, Any]) -> dict[str, str]:
    """Module -> name of its class, for all that hold one of the keys, in order."""
    paths = dict.fromkeys(key.rpartition(".")[0] for key in keys)
    held = dict(net.named_modules(remove_duplicate=False))
    return {path: type(held[path]).__name__ if path in held else "" for path in paths}


def _write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    try:
        # torch's writer; the disk, dtypes
        atomic_write(path, write, faults=(RuntimeError, SafetensorError, KeyError))
    except CnngraphError as error:
        raise WeightsError(str(error)) from None


# --- reading --------------------------------------------------------------------------------------


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """The tensors of a file, whatever its suffix; what they were wrapped in is said in the notes.

    Raises:
        WeightsError: the file cannot be read, is damaged, would run code, or holds no weights.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        if start[8:9] == b"{":
            return _read_safetensors(path)
        if len(start) < 9 or not (start.startswith(b"PK\x03\x04") or start[0] == 0x80):
            raise WeightsError(
                f"{name} holds no weights: it is neither a safetensors file nor one by torch.save"
            )
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise _damaged(name, f"the checksum of {broken} does not hold")
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except (zipfile.BadZipFile, EOFError):
        raise _damaged(name, "it was cut short") from None
    except OSError as error:
        problem = {FileNotFoundError: "it does not exist", IsADirectoryError: "it is a folder"}.get(
            type(error)
        )
        raise WeightsError(f"cannot read {name}: {problem or error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise _damaged(name, "torch.load makes no tensors of it") from None
        raise WeightsError(
            f"{name} is refused: it holds more than tensors, {named[1]}, and reading that could "
            f"run code; where you trust "
            "it, read it with torch.load(..., weights_only=False) and give load_weights the "
            "state_dict"
        ) from None
    # whatever a damaged file makes the readers of zip and pickle stumble over
    except Exception as error:
        raise _damaged(name, one_line(error)) from None
    return from_mapping(contents, name)


def _read_safetensors(path: str | os.PathLike[str]) -> Weights:
    name = os.fspath(path)
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise _damaged(name, one_line(error)) from None
    if not tensors:
        raise WeightsError(f"{name} holds no weights: it is empty")
    kinds = _order(metadata)
    order = {module: index for index, module in enumerate(kinds)}
    ordered = all(key.rpartition(".")[0] in order for key in tensors)
    if ordered:
        keys = sorted(tensors, key=lambda key: order[key.rpartition(".")[0]])
    else:
        keys = sorted(tensors, key=_naturally)
    return Weights(name, {key: tensors[key] for key in keys}, ordered, kinds)


def _order(metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        kinds = json.loads(metadata.get(_ORDER, "{}"))
    except ValueError:
        return {}
    return {str(path): str(kind) for path, kind in kinds.items()} if isinstance(kinds, dict) else {}


def _naturally(key: str) -> list[tuple[int, str]]:
    """Numbers in the order of numbers, where nothing says the true order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]


def from_mapping(contents: Any, name: str) -> Weights:
    """The tensors of a state dict or of a checkpoint around one."""
    notes: list[str] = []
    if isinstance(contents, Mapping) and not any(
        isinstance(value, Tensor) for value in contents.values()
    ):
        wrapper = next((key for key in WRAPPERS if isinstance(contents.get(key), Mapping)), None)
        if wrapper is not None:
            notes.append(f"taken from the file's `{wrapper}`")
            contents = contents[wrapper]
    if not isinstance(contents, Mapping):
        raise WeightsError(
            f"{name} holds no weights: it is a {type(contents).__name__}, not a state_dict"
        )
    tensors = {str(key): value for key, value in contents.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(contents)[:8])) or "nothing"
        raise WeightsError(
            f"{name} holds no weights: it has {keys}, and no state_dict under any of "
            f"{', '.join(WRAPPERS)}"
        )
    others = [str(key) for key, value in contents.items() if not isinstance(value, Tensor)]
    if others:
        notes.append(
            f"left out what is no tensor: "
            f"{', '.join(others[:5])}{', ...' if len(others) > 5 else ''}"
        )
    return Weights(name, tensors, notes=tuple(notes))


def _damaged(name: str, problem: str) -> WeightsError:
    return WeightsError(f"{name} is damaged: {problem}")
