"""Whether a spec computes what the module does: both are compared, value by value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

from torch import Tensor

from cnngraph.graph import Graph
from cnngraph.importer.steps import Step, Steps, UnsupportedError, parent_of
from cnngraph.ops import Op
from cnngraph.ops.merge import Add, Concat, Multiply


class _Values:
    """Numbers for values: equal if they are computed alike, by the same weights."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._floats: list[float] = []
        self._merged: dict[int, tuple[type[Op], tuple[int, ...]]] = {}

    def number(self, op: Op, inputs: Sequence[int], weights: str) -> int:
        """The number of the value that an op with the weights at this path computes."""
        if op.kind == "identity":
            return inputs[0]
        fields = op.model_dump(exclude={"init", "init_value", *op.references})
        if "stride" in fields and fields["stride"] is None:
            fields["stride"] = fields["kernel_size"]  # as pools do
        if isinstance(op, Add | Concat | Multiply):
            inputs = [item for own in inputs for item in self._items(op, own)]
            inputs = inputs if isinstance(op, Concat) else sorted(inputs)
        fields = {name: self._rounded(value) for name, value in fields.items()}
        key = op.kind, repr(sorted(fields.items())), tuple(inputs), weights
        number = self._numbers.setdefault(key, len(self._numbers))
        if isinstance(op, Add | Concat | Multiply):
            self._merged[number] = type(op), tuple(inputs)
        return number

    def _rounded(self, value: Any) -> Any:
        """A number that was seen before, if it only differs from this one by rounding."""
        if not isinstance(value, float):
            return value
        for known in self._floats:
            if isclose(known, value, rel_tol=1e-9):
                return known
        self._floats.append(value)
        return value

    def _items(self, op: Op, number: int) -> tuple[int, ...]:
        """The values that a sum of sums adds, and the same for products and concatenations."""
        kind, items = self._merged.get(number, (None, ()))
        return items if kind is type(op) else (number,)


def require_equal(graph: Graph, network: Steps) -> None:
    """Raises `UnsupportedError` if a graph does not compute what the steps do.

    The forms of a spec are many, and this holds for each: what is written is what was traced.
    """
    values = _Values()
    start = {name: -1 - index for index, name in enumerate(network.inputs)}
    steps = {**start}
    for step in network.steps:
        inputs = [steps[name] for name in step.reads]
        steps[step.result] = values.number(step.op, inputs, step.module if step.weighted else "")
    nodes = dict(zip(graph.inputs, start.values(), strict=True))
    for node in graph.nodes:
        shapes = graph.input_shapes(node)
        weighted = node.op.parameters(*shapes) or node.op.buffers(*shapes)
        inputs = [nodes[path] for path in node.inputs]
        nodes[node.path] = values.number(node.op, inputs, node.module if weighted else "")
    wanted = [steps[name] for name in network.outputs.values() or (network.output,)]
    found = [nodes[path] for path in graph.features.values() or (graph.output,)]
    wanted += [steps[name] for name in network.heads]
    found += [nodes[path] for path in graph.aux.values()]
    if sorted(wanted) != sorted(found) or (wanted and wanted[0] != found[0]):
        known = {*nodes.values()}
        first = next((step for step in network.steps if steps[step.result] not in known), None)
        raise _difference(first)


def require_keys(graph: Graph, weights: Mapping[str, Tensor]) -> None:
    """Raises `UnsupportedError` if a graph has other weights than the module's `state_dict`."""
    shapes = {
        f"{node.module}.{name}".rstrip("."): shape
        for node in graph.nodes
        for own in (node.op.parameters, node.op.buffers)
        for name, shape in own(*graph.input_shapes(node)).items()
    }
    given = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    for key in dict.fromkeys((*shapes, *given)):
        if shapes.get(key) != given.get(key):
            message = f"the language has no word for the module's use of `{key}`"
            raise UnsupportedError(message, parent_of(key))


def _difference(step: Step | None) -> UnsupportedError:
    where = f" from `{step.result}`" if step else ""
    place = f"{step.place}: " if step and step.place else ""
    message = f"{place}the spec would compute something else than the module{where}"
    return UnsupportedError(message, step.level if step else "")
