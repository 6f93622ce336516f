"""Spec -> Graph in one walk: blocks, loops, expressions and shapes are resolved together.

They have to be: an expression may read the shape at its place, and shapes follow from what expressions say. A mistake
leaves an unknown value behind, which silences everything that depends on it, so that one run reports every mistake once.
"""

from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from math import prod
from numbers import Integral, Real
from typing import Any, NoReturn

from cnngraph.composites import WALKS
from cnngraph.errors import MAX_MISTAKES, Diagnostic, Notes, Position, did_you_mean, has_errors, listing
from cnngraph.expressions import (
    MAX_ITEMS,
    MAX_STEPS,
    UNKNOWN,
    Budget,
    ExpressionError,
    OverBudgetError,
    UnknownValueError,
    evaluate,
    extent,
    is_expression,
    show,
)
from cnngraph.graph import INPUT, Graph, Node, Scope, ShapeError, TensorShape
from cnngraph.imports import Block, Spec
from cnngraph.naming import Level, name_problem
from cnngraph.ops import OPS, Op, find_op
from cnngraph.ops.merge import MERGES
from cnngraph.place import LOST, MAX_NODES, MAX_SOURCES, Call, Place, Value
from cnngraph.provenance import Provenance
from cnngraph.spec import (
    COMPOSITES,
    Aux,
    Composite,
    JoinWith,
    Parallel,
    Repeat,
    When,
)
from cnngraph.validation import InvalidError, validate
from cnngraph.yaml_source import Located

MAX_NESTING = 100
MAX_SIZE = 1 << 24
MAX_ELEMENTS = 1 << 31
MAX_PARAMS = 1000
MAX_PATH = 500


def elaborate(spec: Spec, params: Mapping[str, Any] | None = None) -> tuple[Graph | None, list[Diagnostic]]:
    """The network a spec describes, with `params` in the place of its defaults.

    Returns the graph (None where the spec does not hold) and every diagnostic, warnings included.
    """
    walk = Walk(spec)
    graph = walk.run(params or {})
    return (None if has_errors(walk.diagnostics) else graph), walk.diagnostics


_NOWHERE = TensorShape(())
"""The shape to evaluate expressions with where there is no current value."""


class Walk:
    """One walk over one spec. `cnngraph.composites` has the part of it that goes into composite nodes."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.diagnostics: list[Diagnostic] = []
        self.reported: set[Any] = set()
        self.nodes: dict[str, Node] = {}
        self.scopes: dict[str, Scope] = {}
        self.taken: dict[str, Position] = {}
        self.values: dict[str, Value] = {}
        self.aux: dict[str, str] = {}
        self.input = TensorShape(())
        self.origin = Provenance(self.nodes, self.input)
        self.budget = Budget()
        self.steps = 0
        self.depth = 0
        self.mistakes = 0
        self.stopped = False
        self.unnamed: Counter[tuple[str, str]] = Counter()
        self.calls: dict[int, tuple[Located, Call]] = {}
        self.ops: dict[int, tuple[Call, Op]] = {}
        self.equal: dict[Any, Op] = {}
        self.inferred: dict[Any, tuple[Op, TensorShape, bool]] = {}
        self.holders: set[str] = set()
        self.globals: dict[str, Any] = {}
        self.order: dict[str, tuple[str, ...]] = {}
        self.ordered: dict[int, tuple[Block, list[str]]] = {}
        self.numbered_holders: list[Node] = []
        self.named_holders = False

    def run(self, params: Mapping[str, Any]) -> Graph | None:
        try:
            self.globals = self.params(params)
            place = Place(Level(""), self.spec.library, self.globals)
            self.input = self.input_shape(place)
            self.origin = Provenance(self.nodes, self.input)
            result = self.body(self.spec.graph, place, Value(INPUT, self.input))
        except InvalidError:
            return None
        if result.path is None:
            return None
        self.check_order()
        self.warn_of_numbers()
        nodes = tuple(self.nodes.values())
        return Graph(self.spec.name, self.input, nodes, result.path, self.aux, self.scopes, order=self.order)

    # --- reporting -------------------------------------------------------------------------------------------------

    def report(
        self, diagnostic: Diagnostic, place: Place | None = None, path: str | None = None,
        notes: Callable[[], Notes] = tuple,
    ) -> None:  # fmt: skip
        """Records a diagnostic; the same mistake in every copy of a repeat is recorded once.

        `notes` are further ones, which may take long to find and are asked for once.
        """
        calls = [position for _, position in place.calls] if place else []
        repeated = diagnostic.severity == "warning" or bool(place and place.loops)
        message = "" if repeated else diagnostic.message
        key = (diagnostic.code, str(diagnostic.position), message, *map(str, calls))
        if key in self.reported or self.stopped:
            return
        self.reported.add(key)
        diagnostic = replace(diagnostic, notes=(*diagnostic.notes, *notes()))
        if place is not None:
            inside = (place.level.path if path is None else path) or "the top level"
            loops = f"  (repeat {', '.join(place.loops)})" if place.loops else ""
            called = [("called", f"block {block.name}, at {position}") for block, position in reversed(place.calls)]
            diagnostic = replace(diagnostic, path=f"{inside}{loops}", notes=(*called, *diagnostic.notes))
        self.diagnostics.append(diagnostic)
        if diagnostic.severity == "error":
            self.mistakes += 1
            if self.mistakes == MAX_MISTAKES:
                message = f"these are {MAX_MISTAKES} mistakes; what comes after them is not looked at"
                self.diagnostics.append(Diagnostic("E110", message, diagnostic.position))
                self.stopped = True

    def fail(
        self, place: Place, code: str, message: str, position: Position,
        notes: Callable[[], Notes] | Notes = (), **details: Any,
    ) -> NoReturn:  # fmt: skip
        self.report(
            Diagnostic(code, message, position, **details), place, notes=notes if callable(notes) else lambda: notes
        )
        raise InvalidError

    def stop(self, place: Place, message: str, position: Position, **details: Any) -> NoReturn:
        """Ends the walk: a limit on all of it is exceeded."""
        self.report(Diagnostic("E110", message, position, **details), place)
        self.stopped = True
        raise InvalidError

    def spend(self, steps: int, place: Place, position: Position) -> None:
        """Counts work that a spec can ask for much of, in steps of expressions."""
        try:
            self.budget.spend(steps)
        except OverBudgetError:
            message = f"the expressions, lists and arguments of this spec take more than {MAX_STEPS:,} steps in all"
            self.stop(place, message, position)

    # --- parameters and expressions --------------------------------------------------------------------------------

    def params(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The network's parameters: defaults, those of a variant, those given by the caller."""
        spec = self.spec
        self.count_params(spec.params, Place(Level(""), spec.library, {}), spec.position)
        for name in given:
            if name not in spec.params:
                notes = did_you_mean(name, spec.params)
                notes = notes or (("note", f"it has: {', '.join(spec.params) or 'none'}"),)
                self.report(Diagnostic("E113", f"`{spec.name}` has no param `{name}`", notes=notes))
        values: dict[str, Any] = {}
        place = Place(Level(""), spec.library, values)
        missing = []
        for name, default in spec.params.items():
            try:
                declared = self.resolve(spec.declared[name], place, _NOWHERE)
                value = _frozen(given[name]) if name in given else self.resolve(default, place, _NOWHERE)
            except InvalidError:
                values[name] = UNKNOWN
                continue
            position = None if name in given else default.position
            if declared is None and value is None and not is_expression(default.value):
                missing.append(name)
            elif problem := _type_problem(declared, value):
                self.report(Diagnostic("E103", f"the param `{name}` {problem}", position))
            values[name] = value
        if missing:
            names = listing([f"`{name}`" for name in missing])
            helps = (("help", f"give it with `--set {missing[0]}=...` or `params=`"),)
            where = spec.params[missing[0]].position
            self.report(Diagnostic("E102", f"`{spec.name}` needs a value for {names}", where, notes=helps))
        if has_errors(self.diagnostics):
            raise InvalidError
        return values

    def count_params(self, params: Mapping[str, Located], place: Place, position: Position) -> None:
        if len(params) > MAX_PARAMS:
            self.stop(place, f"{len(params):,} params are too many: there may be {MAX_PARAMS:,}", position)

    def input_shape(self, place: Place) -> TensorShape:
        located = self.spec.input
        sizes = self.resolve(located, place, _NOWHERE)
        rule = "`input` must be [channels, height, width], or [features] for flat inputs"
        if not isinstance(sizes, tuple) or len(sizes) not in (1, 3):
            self.fail(place, "E103", rule, located.position)
        for index, size in enumerate(sizes):
            if type(size) is not int or not 1 <= size <= MAX_SIZE:
                message = f"{rule}, each a whole number from 1 to {MAX_SIZE:,}, not {show(size)}"
                self.fail(place, "E103", message, located.at((index,)))
        return TensorShape(sizes)

    def resolve(self, located: Located, place: Place, shape: TensorShape | None) -> Any:
        """The plain value of an argument, its expressions evaluated where `shape` is the current value's."""
        value = located.value
        if isinstance(value, dict | list):
            return self.resolve_all(located, place, shape)
        if not isinstance(value, str) or not is_expression(value):
            return value
        scope = ChainMap(_shape_variables(shape), place.variables)
        try:
            return evaluate(value, scope, self.budget)
        except UnknownValueError:
            raise InvalidError from None
        except OverBudgetError:
            self.spend(1, place, located.position)
            raise InvalidError from None
        except ExpressionError as error:
            position = located.position
            if position.width >= len(value):
                position = position.shifted(error.offset + (position.width > len(value)))
            self.fail(place, "E105", str(error), position, notes=error.notes)

    def resolve_all(self, located: Located, place: Place, shape: TensorShape | None) -> Any:
        self.spend(located.size // 4, place, located.position)
        if isinstance(located.value, dict):
            return {key: self.resolve(item, place, shape) for key, item in located.value.items()}
        result = tuple(self.resolve(item, place, shape) for item in located.value)
        if extent(result) > MAX_ITEMS:
            message = f"a list has at most {MAX_ITEMS:,} items, those of the lists in it included"
            self.fail(place, "E110", message, located.position)
        return result

    # --- the walk --------------------------------------------------------------------------------------------------

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
            try:
                call = self.call(located, place, value)
                return self.dispatch(call, place, value, own)
            except InvalidError:
                if self.stopped:
                    raise
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
            return self.block(call, block, place, value, own)
        if op := find_op(call.kind):
            return self.leaf(call, op, place, value, own)

        def notes() -> Notes:
            known = [*COMPOSITES, *OPS, *place.library.blocks]
            return did_you_mean(call.kind, known) or (("help", "`python -m cnngraph ops` lists what there is"),)

        self.fail(place, "E104", f"there is no op or block `{call.kind}`", call.position, notes=notes)

    def call(self, located: Located, place: Place, value: Value) -> Call:
        """Reads `{kind: arguments}` or the bare `kind`; the kind may be an expression."""
        if (known := self.calls.get(id(located))) is not None:
            return known[1]
        call = self.read_call(located, place, value)
        written = next(iter(located.value)) if isinstance(located.value, dict) else located.value
        if not is_expression(written):
            self.calls[id(located)] = located, call
        return call

    def read_call(self, located: Located, place: Place, value: Value) -> Call:
        kind, position, inner = located.value, located.position, None
        if isinstance(kind, dict):
            if len(kind) != 1:
                self.not_a_node(located, place)
            ((kind, inner),) = kind.items()
            position = located.keys[kind]
        if not isinstance(kind, str) or not kind:
            message = f"a node is `kind` or `kind: arguments`, not {show(located.plain())}"
            self.fail(place, "E107", message, position)
        kind = self.resolve(Located(kind, position), place, value.shape)
        if not isinstance(kind, str):
            self.fail(place, "E107", f"a node's kind must be text, not {show(kind)}", position)
        if inner is None or inner.value is None:
            return Call(kind, position, {}, {}, None, None)
        if kind == Parallel.kind:
            inner = _branches_in_place(inner)
        if not isinstance(inner.value, dict):
            return Call(kind, position, {}, {}, inner, None)
        arguments = dict(inner.value)
        return Call(kind, position, arguments, inner.keys, None, arguments.pop("name", None))

    def not_a_node(self, located: Located, place: Place) -> NoReturn:
        keys = list(located.value)
        if not keys:
            self.fail(place, "E107", "an empty mapping is not a node", located.position)
        first = keys[0]
        notes = (("help", f"indent `{keys[1]}` under `{first}:`, or start a node of its own with `- `"),)
        message = f"a node is one `kind: arguments`, but this mapping has {len(keys)} keys: {', '.join(keys[:5])}"
        self.fail(place, "E107", message, located.keys[first], notes=notes)

    def arguments(self, call: Call, model: type[Any], main: str | None, place: Place, value: Value) -> Any:
        """The validated arguments of an op or a composite. Raises `InvalidError` after reporting."""
        arguments, keys = call.arguments, call.keys
        if call.bare is not None:
            if main is None:
                message = f"`{call.kind}` takes its arguments by name: `{call.kind}: {{name: value}}`"
                self.fail(place, "E103", message, call.bare.position)
            key = model.model_fields[main].alias or main
            arguments, keys = {key: call.bare}, {key: call.bare.position}
        return validate(
            model, arguments, keys,
            what=f"`{call.kind}`", position=call.position,
            resolve=lambda located: self.resolve(located, place, value.shape),
            report=lambda diagnostic: self.report(diagnostic, place),
            equal=self.equal if issubclass(model, Op) else None,
        )  # fmt: skip

    # --- names -----------------------------------------------------------------------------------------------------

    def path(self, call: Call, place: Place, value: Value, own: str | None) -> tuple[str, bool]:
        """The path of a node, and whether its name is a mere index. Claims the path."""
        if call.name is None and own is not None:
            return own, False
        index = place.level.take()
        if call.name is None:
            name = index
        else:
            name = self.resolve(call.name, place, value.shape)
            name = str(name) if type(name) is int else name
            self.check_name(name, place, call.name.position)
        path = place.level.join(name)
        self.claim(path, place, call.name.position if call.name else call.position)
        return path, call.name is None and place.level is not place.counted

    def claim(self, path: str, place: Place, position: Position) -> None:
        if len(path) > MAX_PATH:
            self.fail(place, "E110", f"a path has at most {MAX_PATH} characters, not {len(path):,}", position)
        if path in self.taken:
            self.duplicate(path, place, position)
        self.taken[path] = position
        self.values[path] = LOST

    def check_name(self, name: Any, place: Place, position: Position) -> None:
        if problem := name_problem(name):
            notes = (("help", f"`{name}_` is free"),) if isinstance(name, str) and name.isidentifier() else ()
            self.fail(place, "E116", problem, position, notes=notes)

    def duplicate(self, path: str, place: Place, position: Position) -> NoReturn:
        first = self.taken[path]
        notes = [("note", f"the other one is at line {first.line}")]
        if place.copies:
            notes.append(("help", "in a repeat a name needs the counter: `name: conv${i}`"))
        self.fail(place, "E108", f"two nodes are called `{path}`", position, notes=tuple(notes))

    def inner(self, call: Call, place: Place, value: Value, own: str | None) -> tuple[Place, str | None]:
        """The place inside a composite or block, and its path: None where it has no level of its own."""
        if call.flat:
            return place, None
        path, numbered = self.path(call, place, value, own)
        return replace(place, level=Level(path), numbered=place.numbered or numbered), path

    def finish(self, call: Call, path: str | None, value: Value) -> Value:
        """Records what a composite with a path of its own results in."""
        if path is not None:
            self.values[path] = value
            if value.path is not None and value.shape is not None:
                self.scopes[path] = Scope(path, call.kind, value.path, value.shape, call.position)
        return value

    # --- leaves and joins ------------------------------------------------------------------------------------------

    def leaf(self, call: Call, kind: type[Op], place: Place, value: Value, own: str | None) -> Value:
        if call.flat:
            self.fail(place, "E116", f"`{call.kind}` holds no other nodes, so `name: ~` means nothing", call.position)
        path, numbered = self.path(call, place, value, own)
        op = self.op(call, kind, place, value)
        result = self.add(path, op, (value,), place, call.position)
        self.values[path] = result
        self.note_holder(path, place.numbered or numbered)
        return result

    def op(self, call: Call, kind: type[Op], place: Place, value: Value) -> Op:
        """The op with its arguments; one without expressions is the same in every copy."""
        if (known := self.ops.get(id(call))) is not None:
            return known[1]
        op = self.arguments(call, kind, kind.main, place, value)
        written = [call.bare] if call.bare is not None else call.arguments.values()
        if not any(map(_has_expressions, written)):
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
            self.holders.add(path)
        self.nodes[path] = Node(path, op, tuple(paths), shape, position, aux=place.aux, copies=place.copies)
        return Value(path, shape, place.aux)

    def shape_error(
        self, error: ShapeError, path: str, inputs: Sequence[str], place: Place, position: Position,
        help: str = "",
    ) -> None:  # fmt: skip

        def notes() -> Notes:
            sources = [("from", text) for text in dict.fromkeys(map(self.origin.of, inputs[:MAX_SOURCES]))]
            return (*sources, *([("help", help or error.help)] if help or error.help else []))

        self.report(Diagnostic(error.code, str(error), position), place, path, notes)

    def note_holder(self, path: str, numbered: bool) -> None:
        if path not in self.holders:
            return
        if numbered:
            self.numbered_holders.append(self.nodes[path])
        else:
            self.named_holders = True

    def anonymous(self, level: Level, kind: str) -> str:
        """A path for a node that has no place among the names: no spec can spell it."""
        self.unnamed[level.path, kind] += 1
        count = self.unnamed[level.path, kind]
        return level.join(f"({kind}{count if count > 1 else ''})")

    def join_with(self, call: Call, arguments: JoinWith, place: Place, value: Value, own: str | None) -> Value:
        if call.flat:
            self.fail(place, "E116", f"`{call.kind}` holds no other nodes, so `name: ~` means nothing", call.position)
        path, _ = self.path(call, place, value, own)
        located = call.bare or call.arguments["with"]
        self.spend(len(arguments.values), place, located.position)
        others = [self.lookup(name, place, located.at((index,))) for index, name in enumerate(arguments.values)]
        result = self.add(path, MERGES[call.kind](), [value, *others], place, call.position)
        self.values[path] = result
        return result

    def lookup(self, name: str, place: Place, position: Position) -> Value:
        """An earlier value by its name: looked for beside this node, then outwards."""
        prefix = place.level.path
        while True:
            candidate = f"{prefix}.{name}" if prefix else name
            if candidate in self.values:
                value = self.values[candidate]
                if value.aux not in ("", place.aux):
                    message = f"`{name}` belongs to the side head `{value.aux}`, which exists in training only"
                    self.fail(place, "E109", message, position)
                return value
            if not prefix:
                break
            prefix = prefix.rpartition(".")[0]
        message = f"no earlier node is called `{name}`"
        self.fail(place, "E109", message, position, notes=partial(self.similar, name))

    def similar(self, name: str) -> Notes:
        """Which of the values so far a name that is not known may mean; the last ones are the likeliest."""
        earlier = [path for path in reversed(self.values) if not path.rpartition(".")[2].isdigit()]
        notes = did_you_mean(name, earlier) or did_you_mean(name, (path.rpartition(".")[2] for path in earlier))
        return notes or (("help", "give the node you mean a `name`; only values before this node can be used"),)

    # --- blocks ----------------------------------------------------------------------------------------------------

    def block(self, call: Call, block: Block, place: Place, value: Value, own: str | None) -> Value:
        callers = [caller for caller, _ in place.calls]
        if block in callers:
            chain = " -> ".join(item.name for item in (*callers, block))
            message = f"the block `{block.name}` contains itself: {chain}"
            self.fail(place, "E106", message, call.position)
        self.count_params(block.params, place, block.position)
        self.spend(len(block.params) // 4, place, call.position)
        variables = self.block_arguments(call, block, place, value)
        inside, path = self.inner(call, place, value, own)
        calls = (*place.calls, (block, call.position))
        inside = replace(inside, library=block.library, variables=variables, calls=calls)
        self.note_order(block, inside, call.position)
        whole = self.whole(block.body, inside, value) if path else None
        if whole is not None:
            return self.finish(call, path, self.node(whole, inside, value, path))
        return self.finish(call, path, self.body(block.body, inside, value))

    def whole(self, body: Located, place: Place, value: Value) -> Located | None:
        """The single node that shares one level with the block whose whole body it is."""
        if not isinstance(body.value, list):
            return body
        if len(body.value) != 1:
            return None
        item = body.value[0]
        kind = next(iter(item.value), None) if isinstance(item.value, dict) else item.value
        if isinstance(kind, str):
            kind = self.resolve(Located(kind, item.position), place, value.shape)
        named = isinstance(kind, str) and (kind in COMPOSITES or kind in place.library.blocks)
        return item if named else None

    def note_order(self, block: Block, place: Place, position: Position) -> None:
        if block.order is not None:
            path = place.level.path
            names = (*self.order.get(path, ()), *block.order.plain())
            self.spend(len(names) // 4, place, position)
            self.order[path] = tuple(dict.fromkeys(names))
            self.ordered.setdefault(id(block), (block, []))[1].append(path)

    def check_order(self) -> None:
        """A name in a block's `order` may be missing in some of its calls, but not in all."""
        if not self.ordered or has_errors(self.diagnostics):
            return
        children: dict[str, list[str]] = defaultdict(list)
        for path in self.taken:
            parent, _, name = path.rpartition(".")
            children[parent].append(name)
        for block, paths in self.ordered.values():
            assert block.order is not None
            known = {name for path in paths for name in children[path]}
            for index, name in enumerate(block.order.plain()):
                if name not in known:
                    message = f"the block `{block.name}` has no node called `{name}` to put in order"
                    notes = did_you_mean(name, known) or (("note", f"it has: {', '.join(sorted(known))}"),)
                    self.report(Diagnostic("E109", message, block.order.at((index,)), notes=notes))

    def block_arguments(self, call: Call, block: Block, place: Place, value: Value) -> dict[str, Any]:
        """The variables a block's body sees: the network's params if it is in the same file, and its own."""
        arguments, keys = call.arguments, call.keys
        if call.bare is not None:
            required = [name for name, default in block.params.items() if default.value is None]
            if len(required) != 1:
                message = f"`{block.name}` takes its arguments by name: {', '.join(block.params) or 'it has none'}"
                self.fail(place, "E103", message, call.bare.position)
            arguments, keys = {required[0]: call.bare}, {required[0]: call.bare.position}
        valid = True
        for name in arguments:
            if name not in block.params:
                notes = did_you_mean(name, [*block.params, "name"])
                notes = notes or (("note", f"it takes: {', '.join(block.params) or 'nothing'}"),)
                message = f"the block `{block.name}` takes no `{name}`"
                self.report(Diagnostic("E101", message, keys[name], notes=notes), place)
                valid = False
        missing = [
            f"`{name}`" for name, default in block.params.items() if default.value is None and name not in arguments
        ]
        if missing:
            notes = (("note", f"the block is defined at {block.position}"),)
            message = f"the block `{block.name}` needs {listing(missing)}"
            self.report(Diagnostic("E102", message, call.position, notes=notes), place)
            valid = False
        shared = self.globals if block.library is self.spec.library else {}
        inside = replace(place, variables=dict(shared))
        for name, default in block.params.items():
            inside.variables[name] = self.block_argument(name, default, arguments, place, inside, value)
        if not valid:
            raise InvalidError
        return inside.variables

    def block_argument(
        self, name: str, default: Located, arguments: dict[str, Located],
        outside: Place, inside: Place, value: Value,
    ) -> Any:  # fmt: skip
        try:
            if name not in arguments:
                return self.resolve(default, inside, value.shape)
            result = self.resolve(arguments[name], outside, value.shape)
            declared = self.resolve(default, inside, value.shape)
        except InvalidError:
            return UNKNOWN
        if problem := _type_problem(declared, result, pairs=True):
            self.report(Diagnostic("E103", f"`{name}` {problem}", arguments[name].position), outside)
            return UNKNOWN
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

    def warn_of_numbers(self) -> None:
        """Numbered names shift when a node is inserted; harmless only where all names are numbers."""
        if not self.named_holders:
            return
        told = {str(node.origin): node for node in reversed(self.numbered_holders)}
        for node in islice(reversed(told.values()), MAX_MISTAKES):
            message = f"the weights of `{node.path}` are kept under a number, which inserting a node would shift"
            notes = (("help", f"give the {node.op.kind} a `name`"),)
            self.report(Diagnostic("W401", message, node.origin, notes=notes))
        if len(told) > MAX_MISTAKES:
            message = f"so are those of other nodes, at {len(told) - MAX_MISTAKES:,} more places"
            self.report(Diagnostic("W401", message))


def _branches_in_place(located: Located) -> Located:
    """`parallel: {left: ..., right: ...}` -> `parallel: {branches: {left: ..., right: ...}}`."""
    if not isinstance(located.value, dict) or "branches" in located.value:
        return located
    options = {key: item for key, item in located.value.items() if key in ("name", "merge")}
    branches = {key: item for key, item in located.value.items() if key not in options}
    if not branches:
        return located
    inner = Located(branches, located.position, located.keys)
    return Located({**options, "branches": inner}, located.position, located.keys)


def _size_problem(op: Op, shape: TensorShape, held: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why a result, or what an op holds, is too large to be handled, or None."""
    if max(shape) > MAX_SIZE:
        return f"the result of `{op.kind}` is {shape}; no dimension may exceed {MAX_SIZE:,}"
    for name, sizes in {"result": shape, **held}.items():
        if prod(sizes) > MAX_ELEMENTS:
            dimensions = "x".join(map(str, sizes))
            return f"the {name} of `{op.kind}` is {dimensions}; it may not exceed {MAX_ELEMENTS:,} elements"
    return None


def _has_expressions(located: Located) -> bool:
    value = located.value
    if isinstance(value, dict | list):
        return any(map(_has_expressions, value.values() if isinstance(value, dict) else value))
    return is_expression(value)


def _shape_variables(shape: TensorShape | None) -> dict[str, Any]:
    names = ("in_channels", "in_height", "in_width")
    if shape is None:
        return dict.fromkeys(names, UNKNOWN)
    return dict(zip(names, shape, strict=False))


def _frozen(value: Any) -> Any:
    """A param given from Python as a value of the language: numpy's numbers and arrays become plain."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _type_problem(default: Any, value: Any, pairs: bool = False) -> str | None:
    """Why `value` cannot stand where the default is `default`, or None. A default of none takes anything.

    With `pairs`, a number's place also takes a list of numbers, as a kernel size does.
    """
    if value is not None and not isinstance(value, bool | int | float | str | tuple):
        what = "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"
        return f"must be a number, text or a list, not {what}"
    if pairs and type(default) is int and isinstance(value, tuple):
        return next(filter(None, (_type_problem(default, item) for item in value)), None)
    if default is None or (isinstance(value, type(default)) and not isinstance(value, bool)):
        return None
    if isinstance(default, bool) and isinstance(value, bool):
        return None
    if isinstance(default, float) and type(value) is int:
        return None
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    expected = words.get(type(default), "a list" if isinstance(default, tuple) else "a mapping")
    return f"must be {expected}, as its default {show(default)} is, not {show(value)}"
