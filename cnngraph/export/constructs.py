"""Constructor calls of modules in emitted Python: their arguments, and what copies share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import Any

from torch import Tensor, nn

from cnngraph.importer.holes import Expression, by_factor


@dataclass(frozen=True)
class Construct:
    """A call such as `nn.Conv2d(3, 64, kernel_size=7)`.

    Attributes:
        callee: the class as written.
        args: its arguments by name, without those that are the defaults.
        items: for `nn.Sequential`, the modules in it.
        keys: the names of the items; empty if they are numbered.
    """

    callee: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    items: tuple[Construct, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def structure(self) -> Any:
        """A key that is equal for calls that differ in arguments only."""
        return self.callee, self.keys, tuple(item.structure for item in self.items)


@dataclass(frozen=True)
class Affine:
    """An argument that grows by `step` from one copy to the next."""

    start: Any
    step: Any


@dataclass
class Parameters:
    """The parameters of an emitted class while the arguments in it are explained."""

    values: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])

    def explain(self, argument: str, values: Sequence[Any], hint: str) -> Any:
        """An expression in the class's parameters for an argument that differs between copies."""
        for name, known in self.values.items():
            if known == list(values):
                return Expression(name)
        if argument in _SCALED:
            for name, known in self.values.items():
                if (found := by_factor(values, known, name)) is not None:
                    return found
        name = _INPUTS.get(argument, argument)
        if name in self.values and hint.isidentifier():
            name = f"{hint}_{name}"
        if name in self.values:
            numbered = (f"{name}_{number}" for number in count(2))
            name = next(name for name in numbered if name not in self.values)
        self.values[name] = list(values)
        return Expression(name)


_SCALED = {
    "in_channels", "out_channels", "num_features", "groups", "in_features", "out_features", "shape",
}  # fmt: skip
_INPUTS = {"num_features": "channels", "normalized_shape": "channels", "shape": "channels"}


def generalize(copies: Sequence[Construct], parameters: Parameters, hint: str = "") -> Construct:
    """One call for calls of the same structure, with the parameters that they need."""
    first = copies[0]
    args: dict[str, Any] = {}
    for name in _in_order(first.callee, {name for copy in copies for name in copy.args}, copies):
        values = [copy.args.get(name, default_of(copy.callee, name)) for copy in copies]
        args[name] = _explained(name, values, parameters, hint)
    items = tuple(
        generalize(group, parameters, hint)
        for group in zip(*(copy.items for copy in copies), strict=True)
    )
    return replace(first, args=args, items=items)


def _explained(name: str, values: list[Any], parameters: Parameters, hint: str) -> Any:
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, Affine) for value in values):
        start, step = (
            _explained(name, [getattr(value, side) for value in values], parameters, hint)
            for side in ("start", "step")
        )
        return Affine(start, step)
    if len({len(value) if isinstance(value, tuple) else 0 for value in values}) == 1 and isinstance(
        values[0], tuple
    ):
        return tuple(
            _explained(name, [*elements], parameters, hint)
            for elements in zip(*values, strict=True)
        )
    return parameters.explain(name, values, hint)


def _in_order(callee: str, names: set[str], copies: Sequence[Construct]) -> list[str]:
    """The names of arguments in the order of the class's signature."""
    kind = _MODULES.get(callee)
    known = list(_signature(kind)) if kind is not None else []
    given = list(dict.fromkeys(name for copy in copies for name in copy.args))
    return sorted(names, key=[*(name for name in known if name in names), *given].index)


_MODULES: dict[str, type[nn.Module]] = {}
"""The classes of modules by the names that the emitted text uses."""


def default_of(callee: str, argument: str) -> Any:
    """The default of a class's argument; None if it has none."""
    kind = _MODULES.get(callee)
    if kind is None:
        return None
    found = _signature(kind).get(argument)
    return None if found is None or found is inspect.Parameter.empty else found


@lru_cache
def _signature(kind: type[nn.Module]) -> dict[str, Any]:
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {item.name: item.default for item in [*parameters][1:]}


def construct_of(module: nn.Module) -> Construct:
    """The call that makes a module without children."""
    kind = type(module)
    torch_module = kind.__module__.startswith("torch.nn")
    callee = f"nn.{kind.__name__}" if torch_module else kind.__name__
    _MODULES[callee] = kind
    args: dict[str, Any] = {}
    for name, default in _signature(kind).items():
        if name in ("device", "dtype", "inplace") or not hasattr(module, name):
            continue
        value = _plain(getattr(module, name))
        if name == "bias":
            value = value is not None and value is not False
        if name == "stride" and default is None:
            default = _plain(module.kernel_size)  # of a pool
        if value != default:
            args[name] = value
    return Construct(callee, args)


def _plain(value: Any) -> Any:
    """A value as it would be written: equal sides as one number, a parameter as a flag."""
    if isinstance(value, Tensor):
        return True
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, tuple) and value and len(set(value)) == 1:
        return value[0]
    if isinstance(value, float):
        return float(f"{value:.12g}")  # without the rounding errors of expressions
    return value


def classes_of(callees: set[str]) -> list[type[nn.Module]]:
    """The classes outside of torch that calls use, bases first."""
    found: dict[type[nn.Module], None] = {}
    for callee in sorted(callees):
        kind = _MODULES.get(callee)
        if kind is None or kind.__module__.startswith("torch"):
            continue
        for each in reversed(kind.__mro__):
            if each.__module__.startswith("cnngraph"):
                found[each] = None
    return list(found)
