"""What all ops share: one frozen pydantic class with fields, shape rule, cost, and torch module."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from cnngraph.errors import show
from cnngraph.ops.reach import FIRST, SAME, Reach
from cnngraph.ops.saved import INPUT, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import fx, nn


class Op(BaseModel):
    """An operation of the language. Shapes never include the batch dimension.

    An op that specs may name is registered with `@register`. Its class defines:

    - its fields, with torch's names; they are validated strictly (`"3"` is not a number);
    - `infer`: the shape rule, which raises `ShapeError` if the op cannot be applied;
    - `parameters`, `buffers`, `macs` and `saves`: its cost;
    - `module_class`, or `module`: the module it becomes; or `emit`, if it is a plain call. Torch is
      imported inside of these two only, because checking a spec does not need it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[str]
    """The op's name in specs."""
    main: ClassVar[str | None] = None
    """The field that may be given without its name: `linear: 10`."""
    sets_channels: ClassVar[bool] = False
    """Whether the op decides the number of channels (diagnostics trace a count back to it)."""
    module_class: ClassVar[str | None] = None
    """The full name of the class of its module, such as `torch.nn.Conv2d`."""
    channels_argument: ClassVar[str | None] = None
    """The argument of that class that takes the number of input channels, if there is one."""
    saved: ClassVar[Saved | None] = None
    """What `saves` returns, if that depends on neither fields nor shapes."""
    runs_code: ClassVar[bool] = False
    """Whether it imports code that the spec names, which the user must allow."""
    references: ClassVar[tuple[str, ...]] = ()
    """Fields that name earlier values; those given are further inputs, in this order."""
    pointwise: ClassVar[bool] = False
    """Whether a position of the result reads the same position of each input, and no other."""

    def infer(self, *inputs: TensorShape) -> TensorShape:
        """The output's shape. Raises `ShapeError` if the op cannot be applied to the inputs."""
        raise NotImplementedError

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each trainable parameter, in torch's order.

        The empty name stands for a parameter at the op's own path.
        """
        return {}

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each buffer, in torch's order."""
        return {}

    def needs_batch(self, *inputs: TensorShape) -> bool:
        """Whether a training step with a batch of one image raises."""
        return False

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        """Multiply-accumulates for one image, of convolutions and products; biases do not count."""
        return 0

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """What autograd keeps for backward; by default the inputs and the output."""
        if self.saved is not None:
            return self.saved
        return Saved(inputs=tuple(range(len(inputs))), output=True)

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        """For each axis of a map, the positions of input `index` that a position of `output` reads.

        None if it may read all of them, which is the default of an op that is not `pointwise`.
        """
        spatial = inputs[index].spatial
        if not self.pointwise or not spatial or len(spatial) != len(output.spatial):
            return None
        sizes = zip(spatial, output.spatial, strict=True)
        return tuple(SAME if own == size else FIRST for own, size in sizes)

    def module(self, *inputs: TensorShape) -> nn.Module | nn.Parameter:
        """The torch module that computes the op, or a parameter to put at the op's own path."""
        return new_module(self.module_class, self.arguments(*inputs))

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        """The arguments of `module_class`: the op's fields, and the number of input channels."""
        channels = {self.channels_argument: inputs[0].channels} if self.channels_argument else {}
        return {**channels, **self.model_dump()}

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        """Adds the op to a `torch.fx` graph. `modules` are the targets of the modules it owns."""
        return graph.call_module(modules[0], tuple(inputs))

    @property
    def has_module(self) -> bool:
        """Whether it becomes a module (or parameter), not a plain call."""
        return self.module_class is not None or type(self).module is not Op.module

    def __str__(self) -> str:
        given = [f"{name}={brief(getattr(self, name))}" for name in sorted(self.model_fields_set)]
        return f"{self.kind}[{', '.join(given)}]" if given else self.kind


def new_module(module_class: str | None, arguments: dict[str, Any]) -> nn.Module:
    """An instance of the class with this full name, which is imported."""
    if module_class is None:
        raise NotImplementedError("the op defines neither `module_class` nor `module`")
    package, _, name = module_class.rpartition(".")
    return getattr(import_module(package), name)(**arguments)


class ShapePreserving(Op):
    """An op with one input that keeps its shape, and keeps that input for backward."""

    saved = INPUT
    pointwise = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]


def brief(value: Any) -> str:
    """A value as in YAML; a list of equal values, such as `[3, 3]`, as one of them."""
    match value:
        case (first, *others) if all(item == first for item in others):
            return show(first)
        case _:
            return show(value)


MAPS = {
    1: "channels x length",
    2: "channels x height x width",
    3: "channels x depth x height x width",
}
"""Number of spatial dimensions -> what a map of that rank consists of."""
OF_EVERY_RANK = {
    "conv", "conv_transpose", "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool",
    "global_avg_pool", "global_max_pool", "dropout",
}  # fmt: skip
"""Names of the ops that exist for maps of one, two and three dimensions: `conv1d`, `conv2d`, ..."""


def require_map(op: Op, shape: TensorShape, rank: int | None = 2) -> None:
    """Raises `ShapeError` unless `shape` is a map with `rank` spatial dimensions, if given."""
    found = len(shape.spatial)
    if found == rank or (rank is None and found):
        return
    if not found:
        what, help = f"a flat vector of {shape}", "move it before the `flatten`"
    else:
        what, help = f"{shape}, which is {MAPS.get(found, 'of a higher rank')}", ""
        family = op.kind[:-2]
        if family in OF_EVERY_RANK and found in MAPS:
            help = f"use `{family}{found}d`"
        help = help or "use an op for such maps, or reshape the value with `flatten` or `unflatten`"
    raise ShapeError(
        f"{op.kind} needs {MAPS[rank or 2]}, but its input is {what}", code="E203", help=help
    )


def window_size(
    size: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    ceil_mode: bool = False,
) -> int:
    """The number of positions of a sliding window along one axis, by torch's rule.

    It is 0 or less if the window does not fit.
    """
    span = size + sum(padding) - dilation * (kernel - 1) - 1
    count = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding[0]:
        count -= 1  # torch: the last window must start inside the input or its left padding
    return count


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's `SAME` padding before and after an axis: the result is ceil(size / stride).

    The odd one is added at the end. With stride 1 it is torch's `same`.
    """
    total = max(0, dilation * (kernel - 1) - (size - 1) % stride)
    return total // 2, total - total // 2


def too_small(op: Op, shape: TensorShape, what: str) -> ShapeError:
    """The error for an input into which `what` does not fit."""
    return ShapeError(
        f"the input of {op.kind} is too small: {what} does not fit into {shape}",
        code="E202",
        help="use a larger `input`, more padding, or fewer strides before it",
    )


def indivisible(op: Op, shape: TensorShape, what: str, divisor: int) -> ShapeError:
    """The error for an input in which `divisor` does not divide `what`."""
    return ShapeError(
        f"{op.kind} needs {what} that {divisor} divides, but its input is {shape}",
        code="E204",
        help=f"make {what} of its input a multiple of {divisor}",
    )
