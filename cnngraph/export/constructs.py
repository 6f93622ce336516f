"""Constructor calls of modules in emitted Python: their arguments, and what copies share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import Any

from torch import Tensor, nn

from cnngraph.importer.blocks import snake_case
from cnngraph.importer.holes import Expression, by_factor
from cnngraph.ops import Op


@dataclass(frozen=True)
class Construct:
    """A call such as `nn.Conv2d(3, 64, kernel_size=7)`.

    Attributes:
        callee: the class as written.
        args: its arguments by name, without those that are the defaults.
        items: for `nn.Sequential`, the modules in it.
        keys: the names of the items; empty if they are numbered.
        defaults: the defaults of arguments; an argument with its default is not written.
    """

    callee: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    items: tuple[Construct, ...] = ()
    keys: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict[str, Any])

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
class Parameter:
    """A parameter of an emitted class.

    Attributes:
        argument: the argument of a module that first needed it.
        values: its value for each copy.
        default: its default; None if it has none.
    """

    argument: str
    values: list[Any]
    default: Any = None


@dataclass
class Parameters:
    """The parameters of an emitted class while the arguments in it are explained.

    Attributes:
        results: the channels of each copy's result; other layers have `hidden_channels`.
        by_child: whether these are called after the child instead, as there are several.
        found: the parameters so far, by name.
    """

    results: list[int] = field(default_factory=list[int])
    by_child: bool = False
    found: dict[str, Parameter] = field(default_factory=dict[str, Parameter])

    @property
    def hidden(self) -> list[str]:
        """The parameters for channels other than those of the result."""
        return [name for name in self.found if "hidden_" in name]

    def explain(
        self, argument: str, values: Sequence[Any], hint: str = "", default: Any = None
    ) -> Expression:
        """An expression in the class's parameters for an argument that differs between copies."""
        for name, known in self.found.items():
            if known.values == list(values) and _are_alike(known.argument, argument):
                return Expression(name)
        for name, known in self.found.items():
            if (derived := _derived(argument, values, known, name)) is not None:
                return derived
        name = _NAMES.get(argument, argument)
        if argument == "p":
            name = hint
        elif argument.startswith("hidden_"):
            name = f"{hint}_{argument.removeprefix('hidden_')}"
        elif argument in ("out_channels", "out_features") and list(values) != self.results:
            child = hint if self.by_child and hint.isidentifier() else "hidden"
            name = f"{child}_{argument.removeprefix('out_')}"
        if name in self.found and hint.isidentifier():
            name = f"{hint}_{name.removeprefix(f'{hint}_')}"
        if name in self.found:
            numbered = (f"{name}_{number}" for number in count(2))
            name = next(name for name in numbered if name not in self.found)
        used = any(type(value) is type(default) and value == default for value in values)
        self.found[name] = Parameter(argument, list(values), default if used else None)
        return Expression(name)

    def of(self, copies: Sequence[int]) -> Parameters:
        """The same for some of the copies."""
        found = {
            name: replace(each, values=[each.values[index] for index in copies])
            for name, each in self.found.items()
        }
        return Parameters([self.results[index] for index in copies], self.by_child, found)

    def in_order(self) -> dict[str, Parameter]:
        """Sizes of inputs and outputs first, and those with a default last."""
        pairs = sorted(
            self.found.items(),
            key=lambda pair: (pair[1].default is not None, pair[0] not in POSITIONAL),
        )
        return dict(pairs)


POSITIONAL = {
    "in_channels", "out_channels", "in_features", "out_features", "num_features", "channels",
    "hidden_channels", "hidden_features", "normalized_shape", "p", "output_size",
}  # fmt: skip
"""Arguments that are written without their names."""
_CHANNELS = {
    "in_channels", "out_channels", "num_features", "in_features", "out_features", "shape",
    "hidden_channels", "hidden_features",
}  # fmt: skip
_SCALED = {*_CHANNELS, "groups"}
_SIDES = {
    "kernel_size", "stride", "padding", "dilation", "output_padding", "output_size", "size",
    "scale_factor", "normalized_shape",
}  # fmt: skip
"""Arguments for which one number stands for all sides."""
_NAMES = {"num_features": "channels", "normalized_shape": "channels", "shape": "channels"}


def _are_alike(known: str, argument: str) -> bool:
    return known == argument or (known in _CHANNELS and argument in _SCALED)


def _derived(
    argument: str, values: Sequence[Any], known: Parameter, name: str
) -> Expression | None:
    """An argument that follows from a parameter of another kind, or is a multiple of one."""
    if argument in _SCALED and known.argument in _CHANNELS:
        return by_factor(values, known.values, name)
    if argument == "padding" and known.argument == "kernel_size":
        sizes = known.values
        if all(type(size) is int for size in sizes) and list(values) == [k // 2 for k in sizes]:
            return Expression(f"{name} // 2")
    return None


def generalize(copies: Sequence[Construct], parameters: Parameters, hint: str = "") -> Construct:
    """One call for calls of the same structure, with the parameters that they need."""
    first = copies[0]
    args: dict[str, Any] = {}
    for name in _in_order(first.callee, {name for copy in copies for name in copy.args}, copies):
        default = first.defaults.get(name, default_of(first.callee, name))
        values = [copy.args.get(name, default) for copy in copies]
        args[name] = _explained(name, values, parameters, _hint(first.callee, name, hint), default)
    items = tuple(
        generalize(group, parameters, hint)
        for group in zip(*(copy.items for copy in copies), strict=True)
    )
    return replace(first, args=args, items=items)


def _hint(callee: str, argument: str, child: str) -> str:
    """What a parameter is called after: the class, where the argument says little without it."""
    by_class = argument == "p" or argument.startswith("hidden_")
    return snake_case(callee.removeprefix("nn.")) if by_class else child


def _explained(
    name: str, values: list[Any], parameters: Parameters, hint: str, default: Any = None
) -> Any:
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
    return parameters.explain(name, values, hint, default)


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


def construct_of(module: nn.Module, op: Op) -> Construct:
    """The call that makes the module of an op."""
    kind = type(module)
    torch_module = kind.__module__.startswith("torch.nn")
    callee = f"nn.{kind.__name__}" if torch_module else kind.__name__
    _MODULES[callee] = kind
    args: dict[str, Any] = {}
    for name, default in _signature(kind).items():
        if name in ("device", "dtype", "inplace") or not hasattr(module, name):
            continue
        value = _plain(name if torch_module else "", getattr(module, name))
        if isinstance(value, Tensor):  # a constant, which the op has as numbers
            value = getattr(op, name)
        if name == "bias":
            value = value is not None and value is not False
        if name == "stride" and default is None:
            default = _plain("kernel_size", module.kernel_size)  # of a pool
        if value != default:
            args[name] = value
    return Construct(callee, args)


def _plain(name: str, value: Any) -> Any:
    """A value as it would be written: equal sides as one number, a parameter as a flag."""
    if isinstance(value, nn.Parameter):
        return True
    if isinstance(value, list):
        value = tuple(value)
    if name in _SIDES and isinstance(value, tuple) and len(set(value)) == 1:
        return value[0]
    if isinstance(value, float):
        return float(f"{value:.12g}")  # without the rounding errors of expressions
    return value


def class_of(callee: str) -> type[nn.Module] | None:
    """The class of a module that a call makes."""
    return _MODULES.get(callee)
