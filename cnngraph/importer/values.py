"""What a node of a traced graph stands for: a value of the network, or a weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from cnngraph.importer.steps import Step, UnsupportedError, new_op
from cnngraph.importer.trace import Length
from cnngraph.ops import Op
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Value:
    """A value of the network, as one tensor of the module.

    Attributes:
        name: the value's name in the steps.
        shape: the tensor's shape, with the batch.
        layout: `plain` if the tensor has the shape that the value has in the language; `last` for
            (N, ..., C), with the channels last; `grouped` for (N, groups, C / groups, ...), and
            `swapped` with the two in the middle exchanged.
    """

    name: str
    shape: tuple[int, ...]
    layout: str = "plain"

    @property
    def channel_axis(self) -> int:
        """The axis of the channels, or of the features."""
        return len(self.shape) - 1 if self.layout == "last" else 1

    @property
    def channels(self) -> int:
        """The number of channels, or of features."""
        return self.shape[self.channel_axis]

    @property
    def spatial_axes(self) -> list[int]:
        """The axes of the height and width, or of what the value has in their place."""
        return [axis for axis in range(1, len(self.shape)) if axis != self.channel_axis]

    @property
    def spec_shape(self) -> TensorShape:
        """The shape in the language."""
        if self.layout == "last":
            return TensorShape((self.shape[-1], *self.shape[1:-1]))
        if self.layout in ("grouped", "swapped"):
            return TensorShape((self.shape[1] * self.shape[2], *self.shape[3:]))
        return TensorShape(self.shape[1:])

    @property
    def own(self) -> Value:
        """The value as the language has it, whatever the layout of the tensor."""
        return Value(self.name, (self.shape[0], *self.spec_shape))

    @property
    def rank(self) -> int:
        """2 for maps, 1 for signals, 3 for volumes, 0 for features."""
        return len(self.spec_shape) - 1


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of a module."""

    module: str
    name: str
    tensor: Tensor

    @property
    def path(self) -> str:
        """Its key in the `state_dict`."""
        return f"{self.module}.{self.name}".lstrip(".")


class Recorder:
    """Collects the steps of a graph. Rules call `step` for each op that they recognise.

    Attributes:
        node: the node that is being translated.
        known: what the earlier nodes stand for.
        shapes: the shapes that parameters have in the language, if not those of the module.
    """

    def __init__(self, root: Any, is_leaf: Callable[[Any], bool]) -> None:
        self.root = root
        self.known: dict[fx.Node, Any] = {}
        self.steps: list[Step] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.node: fx.Node = fx.Graph().placeholder("x")
        self._is_leaf = is_leaf
        self._names: set[str] = set()

    def step(self, op: Op, *inputs: Value, module: str = "", weighted: bool = False) -> Value:
        """Records that `op` is applied to `inputs`, and returns its value."""
        if op.pointwise and all(value.layout == "last" for value in inputs):
            return self.step_on_last(op, *inputs, module=module, weighted=weighted)
        inputs = tuple(map(self.plain, inputs))
        name, shape = self._record(op, inputs, module, weighted)
        return Value(name, (inputs[0].shape[0], *shape))

    def step_on_last(
        self, op: Op, *inputs: Value, module: str = "", weighted: bool = False
    ) -> Value:
        """The same for an op that treats each position alike, of tensors with channels last."""
        name, shape = self._record(op, inputs, module, weighted)
        return Value(name, (inputs[0].shape[0], *shape[1:], shape[0]), "last")

    def plain(self, value: Value) -> Value:
        """The value in the layout `plain`; its axes are permuted, or its channels divided."""
        if value.layout == "plain":
            return value
        if value.layout == "last":
            dims = (0, *range(2, len(value.shape)), 1)
            return self.step(new_op("permute", dims=dims), value.own)
        first, second = value.shape[1:3]
        groups = (first, second) if value.layout == "grouped" else (second, first)
        divided = self.step(new_op("unflatten", unflattened_size=groups), value.own)
        if value.layout == "grouped":
            return divided
        return self.step(new_op("transpose", dim0=1, dim1=2), divided)

    def _record(
        self, op: Op, inputs: tuple[Value, ...], module: str, weighted: bool
    ) -> tuple[str, TensorShape]:
        shape = op.infer(*(value.spec_shape for value in inputs))
        name = self._free(self.node.name)
        reads = tuple(value.name for value in inputs)
        level, own = self.level, self.leaf
        self.steps.append(
            Step(
                name, op, reads, inputs[0].spec_shape, shape, level, module or own, self.place,
                weighted, tuple(self._stack),
            )
        )  # fmt: skip
        return name, shape

    def map_of(self, size: Any) -> Value | None:
        """The map whose height and width these sizes are, if the module read them from it."""
        items: Any = size if isinstance(size, tuple | list) else ()
        lengths = [item for item in items if isinstance(item, Length)]
        if [length.axis for length in lengths] != [2, 3] or len(items) != 2:
            return None
        if lengths[0].node is not lengths[1].node:
            return None
        found = self.known.get(lengths[0].node)
        return found if isinstance(found, Value) and found.layout == "plain" else None

    def stored(self, weight: Weight, shape: tuple[int, ...]) -> str:
        """The path of a parameter, which has this shape in the language."""
        own: Tensor = self.root.get_parameter(weight.path)
        if tuple(own.shape) != shape:
            self.shapes[weight.path] = shape
        return weight.path

    def _free(self, name: str) -> str:
        while name in self._names:
            name = f"{name}_"
        self._names.add(name)
        return name

    @property
    def _stack(self) -> dict[str, str]:
        """The calls of modules around the node: `path@1` for a second call -> path."""
        return self.node.meta.get("calls", {})

    @property
    def leaf(self) -> str:
        """The path of the module that is the call itself, and no level; else empty."""
        path = next(reversed(self._stack.values()), "")
        return path if path and self._is_leaf(self.root.get_submodule(path)) else ""

    @property
    def level(self) -> str:
        """The path of the module whose `forward` makes the call."""
        paths = ["", *self._stack.values()]
        return paths[-2] if self.leaf else paths[-1]

    @property
    def place(self) -> str:
        """The place of the call in the module's source, or an empty text."""
        return self.node.meta.get("place", "")

    def unsupported(self, what: str) -> UnsupportedError:
        """The error for something that the language cannot say."""
        where = f" in `{self.level}`" if self.level else ""
        place = f"{self.place}: " if self.place else ""
        message = f"{place}the language has no word for {what}{where}"
        return UnsupportedError(message, self.leaf or self.level)


def permuted(value: Value, dims: tuple[int, ...]) -> Value | None:
    """A value whose axes are permuted, if that only changes its layout."""
    shape = tuple(value.shape[dim] for dim in dims)
    count = len(dims)
    if dims == tuple(range(count)):
        return value
    if value.layout == "plain" and dims == (0, *range(2, count), 1):
        return Value(value.name, shape, "last")
    if value.layout == "last" and dims == (0, count - 1, *range(1, count - 1)):
        return Value(value.name, shape)
    if value.layout in ("grouped", "swapped") and dims == (0, 2, 1, *range(3, count)):
        return Value(value.name, shape, "swapped" if value.layout == "grouped" else "grouped")
    return None
