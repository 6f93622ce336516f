"""What a node of a traced graph stands for: a value of the network, or a weight."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx

from cnngraph.importer.steps import Step, UnsupportedError
from cnngraph.ops import Op
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Value:
    """A value of the network, as one tensor of the module.

    Attributes:
        name: the value's name in the steps.
        shape: the tensor's shape, with the batch.
        layout: `map` for (N, C, H, W), `last` for (N, H, W, C), `flat` for (N, F), `grouped` for
            (N, groups, C / groups, H, W), `swapped` with the two in the middle exchanged.
    """

    name: str
    shape: tuple[int, ...]
    layout: str

    @property
    def channels(self) -> int:
        return self.shape[-1 if self.layout == "last" else 1]

    @property
    def spec_shape(self) -> TensorShape:
        """The shape in the language."""
        if self.layout == "last":
            return TensorShape((self.shape[3], *self.shape[1:3]))
        return TensorShape(self.shape[1:])

    @property
    def is_map(self) -> bool:
        return len(self.shape) == 4


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of a module."""

    module: str
    name: str
    tensor: Tensor


class Recorder:
    """Collects the steps of a graph. Rules call `step` for each op that they recognise.

    Attributes:
        node: the node that is being translated.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.steps: list[Step] = []
        self.node: fx.Node = fx.Graph().placeholder("x")
        self._names: set[str] = set()

    def step(self, op: Op, *inputs: Value, module: str = "", weighted: bool = False) -> Value:
        """Records that `op` is applied to `inputs`, and returns its value."""
        for value in inputs:
            if value.layout not in ("map", "last", "flat"):
                raise self.unsupported(f"`{op.kind}` of a tensor of {value.shape}")
        shape = op.infer(*(value.spec_shape for value in inputs))
        name = self._free(self.node.name)
        self.steps.append(
            Step(
                name,
                op,
                tuple(value.name for value in inputs),
                inputs[0].spec_shape,
                shape,
                self.level,
                module,
                self.place,
                weighted,
            )
        )
        batch, first = inputs[0].shape[0], inputs[0]
        if first.layout == "last" and len(shape) == 3:
            return Value(name, (batch, *shape[1:], shape[0]), "last")
        return Value(name, (batch, *shape), "map" if len(shape) == 3 else "flat")

    def _free(self, name: str) -> str:
        while name in self._names:
            name = f"{name}_"
        self._names.add(name)
        return name

    @property
    def level(self) -> str:
        """The path of the module whose `forward` makes the call."""
        stack = list(self.node.meta.get("nn_module_stack", {"": ("", None)}).values())
        path = stack[-1][0] if stack else ""
        if self.node.op == "call_module":
            path = stack[-2][0] if len(stack) > 1 else ""
        return path

    @property
    def place(self) -> str:
        """The place of the call in the module's source, or an empty text."""
        trace = self.node.meta.get("stack_trace") or self.node.stack_trace or ""
        found = [
            (file, line)
            for file, line in re.findall(r'File "([^"]+)", line (\d+)', trace)
            if "/torch/" not in file and "/cnngraph/importer/" not in file
        ]
        return ":".join(found[-1]) if found else ""

    def unsupported(self, what: str) -> UnsupportedError:
        """The error for something that the language cannot say."""
        where = f" in `{self.level}`" if self.level else ""
        place = f"{self.place}: " if self.place else ""
        return UnsupportedError(f"{place}the language has no word for {what}{where}")


def permuted(value: Value, dims: tuple[int, ...]) -> Value | None:
    """A value whose axes are permuted, if the language can ignore that."""
    shape = tuple(value.shape[dim] for dim in dims)
    if value.layout == "map" and dims == (0, 2, 3, 1):
        return Value(value.name, shape, "last")
    if value.layout == "last" and dims == (0, 3, 1, 2):
        return Value(value.name, shape, "map")
    if value.layout == "grouped" and dims == (0, 2, 1, 3, 4):
        return Value(value.name, shape, "swapped")
    if dims == tuple(range(len(dims))):
        return replace(value)
    return None
