"""The walk over a spec: nodes one after another, each with its shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from cnngraph.elaborate.blocks import call_block, check_order, check_unused
from cnngraph.elaborate.calls import Calls
from cnngraph.elaborate.composites import WALKS
from cnngraph.elaborate.naming import Level
from cnngraph.elaborate.params import MAX_SIZE, input_shape, layout_note, network_params
from cnngraph.elaborate.place import LOST, MAX_NODES, MAX_SOURCES, Call, Place, Value
from cnngraph.elaborate.resolving import has_expressions
from cnngraph.errors import Diagnostic, Notes, Position, has_errors
from cnngraph.graph import INPUT, Graph, Node, Scope
from cnngraph.graph.provenance import Provenance
from cnngraph.ops import Op, find_op
from cnngraph.ops.merge import MERGES
from cnngraph.shape import ShapeError, TensorShape
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.document import COMPOSITES, Aux, Composite, JoinWith, Repeat, When
from cnngraph.spec.loader import Block, Spec
from cnngraph.spec.yaml import Located

MAX_NESTING = 100
MAX_ELEMENTS = 1 << 31


class Walk(Calls):
    """One walk over one spec. `composites`, `blocks` and `params` have those parts of it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.nodes: dict[str, Node] = {}
        self.scopes: dict[str, Scope] = {}
        self.aux: dict[str, str] = {}
        self.input = TensorShape(())
        self.origin = Provenance(self.nodes, self.input)
        self.steps = 0
        self.depth = 0
        self.ops: dict[int, tuple[Call, Op]] = {}
        self.inferred: dict[Any, tuple[Op, TensorShape, bool]] = {}
        self.holders: dict[str, None] = {}
        self.globals: dict[str, Any] = {}
        self.called: dict[int, Block] = {}
        self.order: dict[str, tuple[str, ...]] = {}
        self.ordered: dict[int, tuple[Block, list[str]]] = {}
        self.layout_told = False
        for mistake in spec.mistakes:
            self.report(mistake)

    def run(self, params: Mapping[str, Any]) -> Graph | None:
        """The graph; None where there is a mistake, which is then among the diagnostics."""
        try:
            result = self.whole(params)
        except InvalidError:
            return None
        if has_errors(self.diagnostics):
            return None
        check_order(self)
        self.warn_of_numbers(self.holders)
        if result.path is None:
            return None
        nodes = tuple(self.nodes.values())
        return Graph(self.spec.name, self.input, nodes, result.path, self.aux, self.scopes, order=self.order)

    def whole(self, params: Mapping[str, Any]) -> Value:
        """What all of the spec results in."""
        spec = self.spec
        self.globals = network_params(self, params)
        place = Place(Level(""), spec.library, self.globals)
        result = start = LOST
        if spec.input is not None and (shape := input_shape(self, spec.input, place)) is not None:
            self.input = shape
            self.origin = Provenance(self.nodes, shape)
            start = Value(INPUT, shape)
        if spec.graph is not None:
            result = self.body(spec.graph, place, start)
        check_unused(self)
        return result

    def body(self, located: Located, place: Place, value: Value, own: str | None = None) -> Value:
        """A list of nodes, one after another, or a single node.

        `own` is the path that a single node without a name takes: it is then one level with what holds it.
        """
        if not isinstance(located.value, list):
            return self.node(located, place, value, own)
        for item in located.value:
            value = self.node(item, place, value)
        return value

    def node(self, located: Located, place: Place, value: Value, own: str | None = None) -> Value:
        self.step(place, located.position)
        self.depth += 1
        try:
            if self.depth > MAX_NESTING:
                self.fail(place, "E110", f"nodes are nested more than {MAX_NESTING} deep", located.position)
            if isinstance(located.value, list):
                return self.body(located, place, value)
            call = None
            try:
                call = self.call(located, place, value)
                return self.dispatch(call, place, value, own)
            except InvalidError:
                if self.stopped:
                    raise
                if call is not None:
                    self.lose(call, place)
                return LOST
        finally:
            self.depth -= 1

    def step(self, place: Place, position: Position) -> None:
        """Counts what the walk visits: a spec from a stranger must not keep it busy for long."""
        self.steps += 1
        if self.stopped:
            raise InvalidError
        if self.steps > MAX_NODES:
            self.stop(place, f"the network has more than {MAX_NODES:,} nodes and repeats", position)

    def dispatch(self, call: Call, place: Place, value: Value, own: str | None) -> Value:
        if call.kind in COMPOSITES:
            return self.composite(call, COMPOSITES[call.kind], place, value, own)
        if block := place.library.blocks.get(call.kind):
            return call_block(self, call, block, place, value, own)
        if op := find_op(call.kind):
            return self.leaf(call, op, place, value, own)
        self.unknown_kind(call.kind, place, call.position)

    def inner(self, call: Call, place: Place, value: Value, own: str | None) -> tuple[Place, str | None]:
        """The place inside a composite or block, and its path: None where it has no level of its own."""
        if call.flat:
            return place, None
        path = self.path(call, place, value, own)
        return replace(place, level=Level(path)), path

    def finish(self, call: Call, path: str | None, value: Value) -> Value:
        """Records what a composite with a path of its own results in."""
        if path is not None:
            self.values[path] = value
            if value.path is not None and value.shape is not None:
                self.scopes[path] = Scope(path, call.kind, value.path, value.shape, call.position)
        return value

    def leaf(self, call: Call, kind: type[Op], place: Place, value: Value, own: str | None) -> Value:
        if call.flat:
            self.fail(place, "E116", f"`{call.kind}` holds no other nodes, so `name: ~` means nothing", call.position)
        path = self.path(call, place, value, own)
        op = self.op(call, kind, place, value)
        result = self.add(path, op, (value,), place, call.position)
        self.values[path] = result
        return result

    def op(self, call: Call, kind: type[Op], place: Place, value: Value) -> Op:
        """The op with its arguments; one without expressions is the same in every copy."""
        if (known := self.ops.get(id(call))) is not None:
            return known[1]
        op = self.arguments(call, kind, kind.main, place, value)
        written = [call.bare] if call.bare is not None else call.arguments.values()
        if not any(map(has_expressions, written)):
            self.ops[id(call)] = call, op
        return op

    def add(
        self, path: str, op: Op, values: Sequence[Value], place: Place, position: Position,
        help: str = "",
    ) -> Value:  # fmt: skip
        """Appends a node, if its inputs are known and its shape rule holds."""
        if len(values) > 2:
            self.spend(len(values), place, position)
        shapes = [value.shape for value in values if value.shape is not None]
        paths = [value.path for value in values if value.path is not None]
        if len(shapes) < len(values):
            return LOST
        key = (id(op), *shapes)
        if key not in self.inferred:
            try:
                shape = op.infer(*shapes)
            except ShapeError as error:
                self.shape_error(error, path, paths, place, position, help)
                return LOST
            held = {**op.parameters(*shapes), **op.buffers(*shapes)}
            if problem := _size_problem(op, shape, held):
                self.report(Diagnostic("E110", problem, position), place, path)
                return LOST
            self.inferred[key] = op, shape, bool(op.parameters(*shapes))
        _, shape, holds = self.inferred[key]
        if holds:
            self.holders[path] = None
        self.nodes[path] = Node(path, op, tuple(paths), shape, position, aux=place.aux, copies=place.copies)
        return Value(path, shape, place.aux)

    def shape_error(
        self, error: ShapeError, path: str, inputs: Sequence[str], place: Place, position: Position,
        help: str = "",
    ) -> None:  # fmt: skip

        def notes() -> Notes:
            sources = [("from", text) for text in dict.fromkeys(map(self.origin.of, inputs[:MAX_SOURCES]))]
            layout = () if self.layout_told else layout_note(self.input)
            self.layout_told = True
            return (*sources, *([("help", help or error.help)] if help or error.help else []), *layout)

        self.report(Diagnostic(error.code, str(error), position), place, path, notes)

    def join_with(self, call: Call, arguments: JoinWith, place: Place, value: Value, own: str | None) -> Value:
        if call.flat:
            self.fail(place, "E116", f"`{call.kind}` holds no other nodes, so `name: ~` means nothing", call.position)
        path = self.path(call, place, value, own)
        located = call.bare or call.arguments["with"]
        self.spend(len(arguments.values), place, located.position)
        others = [self.lookup(name, place, located.at((index,)), path) for index, name in enumerate(arguments.values)]
        result = self.add(path, MERGES[call.kind](), [value, *others], place, call.position)
        self.values[path] = result
        return result

    def composite(self, call: Call, model: type[Composite], place: Place, value: Value, own: str | None) -> Value:
        arguments = self.arguments(call, model, model.main, place, value)
        if isinstance(arguments, JoinWith):
            return self.join_with(call, arguments, place, value, own)
        if isinstance(arguments, Aux) and (call.name is None or call.flat):
            notes = (("help", "the network returns its result under that name in training"),)
            self.fail(place, "E102", "`aux` needs a `name`", call.position, notes=notes)
        if isinstance(arguments, Repeat | When) and call.name is None and own is None:
            inside, path = place, None
        else:
            inside, path = self.inner(call, place, value, own)
        result = WALKS[type(arguments)](self, call, arguments, inside, path, value)
        self.finish(call, path, result)
        return value if isinstance(arguments, Aux) else result


def _size_problem(op: Op, shape: TensorShape, held: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why a result, or what an op holds, is too large to be handled, or None."""
    if max(shape) > MAX_SIZE:
        return f"the result of `{op.kind}` is {shape}; no dimension may exceed {MAX_SIZE:,}"
    for name, sizes in {"result": shape, **held}.items():
        if prod(sizes) > MAX_ELEMENTS:
            dimensions = "x".join(map(str, sizes))
            return f"the {name} of `{op.kind}` is {dimensions}; it may not exceed {MAX_ELEMENTS:,} elements"
    return None
