"""Submodules that the language has no word for stay modules: `module:` nodes, by their class."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph.errors import first_line
from cnngraph.importer.steps import UnsupportedError, new_op, parent_of
from cnngraph.importer.values import Recorder, Value
from cnngraph.ops.op import new_module

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def keep(kept: set[str], root: nn.Module, path: str) -> bool:
    """Adds `path`, or else that of the nearest module around it that can be added, to `kept`.

    Modules that print alike fail alike, and are added with it. Returns whether there is one.
    """
    while path:
        module = root.get_submodule(path)
        if path not in kept and not isinstance(module, _CONTAINERS):
            text = repr(module)
            kept |= {name for name, each in root.named_modules() if repr(each) == text}
            return True
        path = parent_of(path)
    return False


def kept_step(record: Recorder, module: nn.Module, path: str, *args: Any, **kwargs: Any) -> Value:
    """The step of a module that stays a module, and its value.

    Raises:
        UnsupportedError: the module does not map one tensor to one tensor, or the arguments of its
            constructor are not known.
    """
    kind = type(module)
    if kwargs or len(args) != 1 or not isinstance(args[0], Value):
        raise _cannot_stay(record, module, path, "it takes more than one tensor")
    input = args[0]
    name = _name_of(kind)
    try:
        given = _arguments(module, input.shape[1])
        same = _is_same(new_module(name, given), module, input.shape)
    except Exception as error:
        why = f"{name} cannot be made: {first_line(error)}"
        raise _cannot_stay(record, module, path, why) from error
    if not same:
        why = "not all arguments of its constructor are attributes of these names"
        raise _cannot_stay(record, module, path, why)
    op = new_op("module", **{"class": name, "args": given})
    return record.step(op, input, module=path, weighted=bool(module.state_dict()))


def _cannot_stay(record: Recorder, module: nn.Module, path: str, why: str) -> UnsupportedError:
    place = f"{record.place}: " if record.place else ""
    what = f"`{path}` ({type(module).__name__}) cannot stay a module"
    return UnsupportedError(f"{place}{what}: {why}", path)


def _name_of(kind: type[nn.Module]) -> str:
    """The full name of a class; for those of torch, the documented one."""
    if getattr(nn, kind.__name__, None) is kind:
        return f"torch.nn.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _arguments(module: nn.Module, channels: int) -> dict[str, Any]:
    """The arguments of a module's constructor that differ from their defaults.

    They are read from the attributes of these names. A required one without an attribute is taken
    for the number of channels of the input.
    """
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        value = getattr(module, name, parameter.default)
        if isinstance(parameter.default, bool) and isinstance(value, Tensor | nn.Module | None):
            value = value is not None  # such as `bias`
        if required and not _is_plain(value):
            value = channels
        if _is_plain(value) and (required or value != parameter.default):
            found[name] = _frozen(value)
    return found


def _frozen(value: Any) -> Any:
    """A value as specs have it, where lists are tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _is_plain(value: Any) -> bool:
    """Whether a value can be written in a spec."""
    if isinstance(value, list | tuple):
        items: Sequence[Any] = value
        return all(map(_is_plain, items))
    return value is None or type(value) in (bool, int, float, str)


def _is_same(made: nn.Module, module: nn.Module, shape: Sequence[int]) -> bool:
    """Whether `made` prints as a module does, and computes the same with the same weights."""
    own, made = copy.deepcopy(module).cpu().eval(), made.cpu().eval()
    if repr(made) != repr(own):
        return False
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        for weight in own.parameters():
            weight.normal_(std=0.1)
        try:
            made.load_state_dict(own.state_dict())
        except RuntimeError:
            return False
        x = torch.randn(shape)
        expected, found = own(x), made(x)
    return isinstance(found, Tensor) and torch.allclose(found, expected)
