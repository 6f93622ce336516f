"""Builds the graph of a walk: appends nodes, infers their shapes, and explains shapes that fail."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import NamedTuple

from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import STEPS_A_NODE, Evaluator
from cnngraph.elaborate.params import MAX_SIZE
from cnngraph.elaborate.place import INVALID, MAX_SOURCES, Place, Value
from cnngraph.errors import Diagnostic, Notes, Position
from cnngraph.graph import Node, Scope
from cnngraph.graph.input_sizes import divisor
from cnngraph.graph.provenance import Provenance
from cnngraph.ops import Op
from cnngraph.ops.merge import Add, Concat, Multiply
from cnngraph.shape import ShapeError, TensorShape

MAX_ELEMENTS = 1 << 31
_NEEDS_BATCH = (
    "the input of `{}` has a single value per channel: training raises for a batch of one image"
)
_LARGER: Notes = (("help", "train with two images or more per batch; evaluation is not affected"),)


class _Inferred(NamedTuple):
    """What follows from an op and the shapes of its inputs."""

    op: Op
    shape: TensorShape
    has_weights: bool
    needs_batch: bool


class Part(NamedTuple):
    """A composite, branch or block.

    Attributes:
        start: the path of the value that it reads.
        nodes, scopes: how many there were before its own, which follow one after another.
    """

    start: str
    nodes: int
    scopes: int


class GraphBuilder:
    """The graph so far.

    Attributes:
        inputs, nodes, scopes, aux: as in `Graph`, by path.
        origin: explains where shapes come from.
        weighted: paths of the nodes with parameters.
        parts: composites, branches and blocks by path, also those without a result.
    """

    def __init__(
        self, inputs: dict[str, TensorShape], diagnostics: Diagnostics, evaluator: Evaluator
    ) -> None:
        self._diagnostics = diagnostics
        self._evaluator = evaluator
        self.inputs = inputs
        self.nodes: dict[str, Node] = {}
        self.scopes: dict[str, Scope] = {}
        self.aux: dict[str, str] = {}
        self.weighted: list[str] = []
        self.parts: dict[str, Part] = {}
        self.origin = Provenance(self.nodes, inputs)
        self._inferred: dict[Hashable, _Inferred] = {}
        self._divisor_noted = False

    def begin(self, path: str, value: Value) -> None:
        """Notes that the nodes of a composite, branch or block follow, which reads `value`."""
        self.parts.setdefault(path, Part(str(value.path), len(self.nodes), len(self.scopes)))

    def add(
        self,
        path: str,
        op: Op,
        values: Sequence[Value],
        place: Place,
        position: Position,
        shared: str = "",
    ) -> Value:
        """Appends a node and returns its value: `INVALID` if an input is, or after a mistake.

        `shared` is the path of the node whose module it calls, if it has none of its own.
        """
        if len(values) > 2:
            self._evaluator.spend(len(values), place, position)
        shapes = [value.shape for value in values if value.shape is not None]
        paths = tuple([value.path for value in values if value.path is not None])
        if len(shapes) < len(values):
            return INVALID
        key = (id(op), *shapes)
        if (known := self._inferred.get(key)) is None:
            self._evaluator.spend(STEPS_A_NODE, place, position)
            try:
                shape = op.infer(*shapes)
            except ShapeError as error:
                self._shape_error(error, op, path, paths, place, position)
                return INVALID
            parameters = op.parameters(*shapes)
            if problem := _size_problem(op, shape, {**parameters, **op.buffers(*shapes)}):
                self._diagnostics.report(Diagnostic("E110", problem, position), place, path)
                return INVALID
            known = _Inferred(op, shape, bool(parameters), op.needs_batch(*shapes))
            self._inferred[key] = known
        _, shape, has_weights, needs_batch = known
        if has_weights and not shared:
            self.weighted.append(path)
        if needs_batch:
            self._diagnostics.report(
                Diagnostic("W402", _NEEDS_BATCH.format(op.kind), position, notes=_LARGER),
                place,
                path,
            )
        self.nodes[path] = Node(
            path, op, paths, shape, position, aux=place.aux, copies=place.copies, shared=shared
        )
        return Value(path, shape, place.aux)

    def _shape_error(
        self,
        error: ShapeError,
        op: Op,
        path: str,
        inputs: Sequence[str],
        place: Place,
        position: Position,
    ) -> None:
        def notes() -> Notes:
            sources = dict.fromkeys(map(self.origin.of, inputs[:MAX_SOURCES]))
            help = self.help_for(op, inputs) or error.help
            help = (("help", help),) if help else ()
            return (*(("from", text) for text in sources), *help)

        self._diagnostics.report(Diagnostic(error.code, str(error), position), place, path, notes)

    def help_for(self, op: Op, inputs: Sequence[str]) -> str:
        """A way out if values cannot be joined because the input's sizes are odd; otherwise ""."""
        if not isinstance(op, Concat | Add | Multiply) or self._divisor_noted:
            return ""
        self._divisor_noted = True
        number = divisor(self.nodes, self.inputs, op, inputs)
        if number is None:
            return ""
        first = next(iter(self.inputs.values()))
        sizes = "x".join(str(-(-size // number) * number) for size in first.spatial)
        return (
            f"make the sizes of `input` divisible by {number}, such as {sizes}, or give one value "
            "the size of the other: `upsample: {like: NAME}`, `pad` or `crop`"
        )


def _size_problem(op: Op, shape: TensorShape, held: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why an op's result, or one of its parameters or buffers, is too large, or None."""
    if max(shape) > MAX_SIZE:
        return f"the result of `{op.kind}` is {shape}; a dimension is at most {MAX_SIZE:,}"
    for name, sizes in {"result": shape, **held}.items():
        if prod(sizes) > MAX_ELEMENTS:
            what = f"the {name} of `{op.kind}` is {'x'.join(map(str, sizes))}"
            return f"{what}; a tensor has at most {MAX_ELEMENTS:,} elements"
    return None
