"""What every op is: one frozen pydantic class that holds its fields, shape rule, cost, and how it becomes torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from cnngraph.errors import show
from cnngraph.ops.saved import INPUT, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import fx, nn


class Op(BaseModel):
    """An operation of the language. Shapes never hold the batch dimension.

    A leaf op (one a spec may name) is registered with `@register`. Its class says:

    - its fields, named as torch names them; they are validated strictly (`"3"` is not a number);
    - `infer`: the shape rule, which raises `ShapeError` where the op cannot be applied;
    - `parameters` and `buffers`: what it holds; `macs`: what it costs; `saves`: what backward needs of it;
    - `module`: the torch module it becomes (torch is imported there, not at the top: checking needs no torch),
      or `emit` where it becomes a plain call.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: ClassVar[str]
    """The op's name in specs."""
    main: ClassVar[str | None] = None
    """The field that may be given without its name: `linear: 10`."""
    sets_channels: ClassVar[bool] = False
    """Whether the op decides the number of channels (diagnostics trace a count back to such an op)."""

    def infer(self, *inputs: TensorShape) -> TensorShape:
        """The output's shape. Raises `ShapeError` where the inputs do not fit."""
        raise NotImplementedError

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each trainable parameter, in torch's order. The empty name is the op's own path."""
        return {}

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Name -> shape of each buffer, in torch's order."""
        return {}

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        """Multiply-accumulates for one image; only convolutions and products count, bias additions do not."""
        return 0

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """What autograd keeps of it for backward. An op that does not say is taken to keep its inputs and its output."""
        return Saved(inputs=tuple(range(len(inputs))), output=True)

    def module(self, *inputs: TensorShape) -> nn.Module | nn.Parameter:
        """The torch module that computes the op; or the one parameter it holds, which then sits at the op's own path."""
        raise NotImplementedError

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        """Adds the op to a `torch.fx` graph. `modules` are the targets of the modules it owns: one, its own."""
        return graph.call_module(modules[0], tuple(inputs))

    @property
    def has_module(self) -> bool:
        return type(self).module is not Op.module

    def __str__(self) -> str:
        given = [f"{name}={_brief(getattr(self, name))}" for name in sorted(self.model_fields_set)]
        return f"{self.kind}[{', '.join(given)}]" if given else self.kind


class ShapePreserving(Op):
    """An op of one input that keeps its shape. It becomes the `torch.nn` class of its own class's name."""

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return INPUT

    def module(self, *inputs: TensorShape) -> nn.Module:
        from torch import nn

        return getattr(nn, type(self).__name__)(**self.model_dump())


def _brief(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        return show(value[0])
    return show(value)


def require_map(op: Op, shape: TensorShape) -> None:
    """Raises `ShapeError` unless `shape` is channels x height x width."""
    if len(shape) != 3:
        raise ShapeError(
            f"{op.kind} needs channels x height x width, but its input is a flat vector of {shape}",
            code="E203",
            help="move it before the `flatten`",
        )


def window_size(
    size: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    ceil_mode: bool = False,
) -> int:
    """How many positions a sliding window has along one axis, by torch's rule (0 or less where it does not fit)."""
    span = size + sum(padding) - dilation * (kernel - 1) - 1
    count = (span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding[0]:
        count -= 1  # torch: the last window must start inside the input or its left padding
    return count


def too_small(op: Op, shape: TensorShape, what: str) -> ShapeError:
    return ShapeError(
        f"the input of {op.kind} is too small: {what} does not fit into {shape}",
        code="E202",
        help="use a larger `input`, more padding, or fewer strides before it",
    )
