"""The walk over a spec: one node after another, each with its shape."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from cnngraph.elaborate.blocks import Blocks
from cnngraph.elaborate.builder import GraphBuilder
from cnngraph.elaborate.calls import Calls
from cnngraph.elaborate.composites import WALKS, from_value
from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import STEPS_A_NODE, Evaluator
from cnngraph.elaborate.initial import initialised
from cnngraph.elaborate.joins import join, references
from cnngraph.elaborate.params import input_shapes, network_params
from cnngraph.elaborate.paths import Paths
from cnngraph.elaborate.place import INVALID, MAX_NODES, Call, Level, Place, Value
from cnngraph.elaborate.sharing import follows, same_node, share
from cnngraph.errors import Diagnostic, Position, has_errors, is_list, show
from cnngraph.graph import INPUT, Graph, Scope
from cnngraph.ops import Op, find_op
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.document import (
    COMPOSITES,
    CURRENT,
    MAX_TEXT,
    Aux,
    Composite,
    From,
    JoinWith,
    Repeat,
    Share,
    When,
)
from cnngraph.spec.spec import ALLOW_CODE, Block, Spec
from cnngraph.spec.yaml import Located

MAX_NESTING = 100
NO_LEVEL = ""
"""The path for the whole body of a block that is called with `name: ~`."""


class Walk:
    """One walk over one spec."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.diagnostics = Diagnostics(spec.mistakes)
        self.evaluator = Evaluator(self.diagnostics)
        self.paths = Paths(self.diagnostics, self.evaluator, spec.graph)
        self.calls = Calls(self.diagnostics, self.evaluator)
        self.blocks = Blocks(spec, self.diagnostics, self.evaluator)
        self.graph = GraphBuilder({}, self.diagnostics, self.evaluator)
        self._steps = 0
        self._depth = 0
        self.features: dict[str, str] = {}
        self._named: dict[str, tuple[Call, dict[str, Any]]] = {}
        self._goes_back = False

    def run(self, params: Mapping[str, Any]) -> Graph | None:
        """The graph; None after a mistake, which is then among the diagnostics."""
        try:
            result = self._network(params)
            if not has_errors(self.diagnostics.found):
                self._warn_of_unused(result)
                self.blocks.check_order(self.paths.taken)
                self.paths.warn_of_numbers(self.graph.weighted)
        except InvalidError:
            return None
        if result.path is None or has_errors(self.diagnostics.found):
            return None
        return Graph(
            self.spec.name,
            self.graph.inputs,
            tuple(self.graph.nodes.values()),
            next(reversed(self.features.values()), result.path),
            self.graph.aux,
            self.graph.scopes,
            self.features,
            order=self.blocks.order,
            containers=frozenset(self.paths.containers),
        )

    def valid_part(self) -> Graph | None:
        """After `run`: the nodes that do not depend on a mistake; None if there are none."""
        nodes = tuple(self.graph.nodes.values())
        main = [node for node in nodes if not node.aux] or nodes
        if not main:
            return None
        return Graph(
            self.spec.name,
            self.graph.inputs,
            nodes,
            main[-1].path,
            self.graph.aux,
            self.graph.scopes,
        )

    def _network(self, params: Mapping[str, Any]) -> Value:
        """The network's result."""
        spec = self.spec
        self.blocks.params = network_params(spec, params, self.diagnostics, self.evaluator)
        place = Place(Level(""), spec.library, dict(self.blocks.params))
        result = value = INVALID
        given = None if INPUT in spec.params else params.get(INPUT)
        inputs = input_shapes(spec, given, place, self.diagnostics, self.evaluator)
        if inputs is not None:
            self.graph = GraphBuilder(inputs, self.diagnostics, self.evaluator)
            self.paths.inputs.update(inputs)
            self.paths.values.update((name, Value(name, inputs[name])) for name in inputs)
            value = next(iter(self.paths.values.values()))
            self._goes_back = len(inputs) > 1
        if spec.inputs is not None:
            self.paths.taken.update(spec.inputs.keys)
        if spec.graph is not None:
            result = self.body(spec.graph, place, value)
        for block, inside in self.blocks.uncalled():
            if not self.diagnostics.stopped:
                self.body(block.body, inside, INVALID)
        if spec.outputs is not None:
            self._find_outputs(spec.outputs, place, result)
        return result

    def _find_outputs(self, located: Located, place: Place, result: Value) -> None:
        """Finds the values that the network returns, as the spec's `outputs` names them."""
        names = self.evaluator.resolve(located, place, result.shape)
        if is_list(names):
            pairs = [(name, name) for name in names]
        else:
            pairs = [*names.items()] if isinstance(names, dict) else []
        if not pairs or any(key == CURRENT for key, _ in pairs):
            message = "`outputs` must be a list of names of values, or a mapping from names to them"
            self.diagnostics.fail(place, "E103", message, located.position)
        for index, (key, name) in enumerate(pairs):
            position = located.at((index,) if isinstance(located.value, list) else (key,))
            with suppress(InvalidError):
                found = self._output(key, name, place, position, result)
                self.features[key] = str(found.path)
        self._goes_back = True

    def _output(
        self, key: str, name: Any, place: Place, position: Position, result: Value
    ) -> Value:
        """The value that an entry of `outputs` names. Raises `InvalidError`."""
        if not isinstance(name, str):
            message = f"an output must be the name of a value, not {show(name)}"
            self.diagnostics.fail(place, "E103", message, position)
        if len(key) > MAX_TEXT:
            message = f"the name of an output has at most {MAX_TEXT} characters, not {len(key):,}"
            self.diagnostics.fail(place, "E116", message, position)
        if key in self.graph.aux:
            message = f"an output cannot be called `{key}`: this is a side head"
            self.diagnostics.fail(place, "E108", message, position)
        return result if name == CURRENT else self.paths.lookup(name, place, position)

    def _warn_of_unused(self, result: Value) -> None:
        """Warns of nodes whose value nothing reads, which going back to earlier values leaves."""
        if not self._goes_back:
            return
        read = {path for node in self.graph.nodes.values() for path in node.inputs}
        read.update(self.features.values() or [str(result.path)], self.graph.aux.values())
        for name in self.graph.inputs.keys() - read:
            position = self.spec.inputs.keys[name] if self.spec.inputs else None
            message = f"the input `{name}` is never used"
            self.diagnostics.report(Diagnostic("W405", message, position))
        for node in self.graph.nodes.values():
            if node.path not in read:
                message = f"the value of `{node.path}` is never used"
                self.diagnostics.report(Diagnostic("W405", message, node.origin, path=node.path))

    def body(self, located: Located, place: Place, value: Value, own: str | None = None) -> Value:
        """Walks nodes one after another, or a single node.

        `own` is the path for a single node without a name, which then shares a level with the
        composite or block around it.
        """
        if not isinstance(located.value, list):
            return self.node(located, place, value, own)
        for item in located.value:
            value = self.node(item, place, value)
        return value

    def node(self, located: Located, place: Place, value: Value, own: str | None = None) -> Value:
        """Walks a node; its value is `INVALID` after a mistake, which has been reported."""
        self.count(place, located.position)
        self._depth += 1
        try:
            if self._depth > MAX_NESTING:
                message = f"nodes are nested more than {MAX_NESTING} levels deep"
                self.diagnostics.fail(place, "E110", message, located.position)
            call = None
            try:
                if isinstance(located.value, list):
                    self.calls.refuse_row(located, place)
                    return self.body(located, place, value)
                call = self.calls.read(located, place, value)
                return self._dispatch(call, place, value, own)
            except InvalidError:
                if self.diagnostics.stopped:
                    raise
                if call is not None:
                    self.paths.invalidate(call, place)
                return INVALID
        finally:
            self._depth -= 1

    def count(self, place: Place, position: Position) -> None:
        """Counts a step of the walk. Raises `InvalidError` when a spec takes too many."""
        self._steps += 1
        if self.diagnostics.stopped:
            raise InvalidError
        if self._steps > MAX_NODES:
            message = f"the network has more than {MAX_NODES:,} nodes and repeats"
            self.diagnostics.stop(place, message, position)
        self.evaluator.spend(STEPS_A_NODE, place, position)

    def start(self, call: Call, place: Place, value: Value) -> Value:
        """The value that a node reads: the one named by its `from`, otherwise the current one."""
        if call.origin is None:
            return value
        self._goes_back = True
        name = self.evaluator.resolve(call.origin, place, value.shape)
        if not isinstance(name, str):
            message = f"`from` must be the name of an earlier node, not {show(name)}"
            self.diagnostics.fail(place, "E103", message, call.origin.position)
        return value if name == CURRENT else self.paths.lookup(name, place, call.origin.position)

    def _dispatch(self, call: Call, place: Place, value: Value, own: str | None) -> Value:
        if self._is_repeated(call, place, value):
            return self._share_by_name(call, place, value)
        if call.kind in COMPOSITES:
            return self._composite(call, COMPOSITES[call.kind], place, value, own)
        if block := place.library.blocks.get(call.kind):
            return self._block(call, block, place, self.start(call, place, value), own)
        if op := find_op(call.kind):
            return self._leaf(call, op, place, self.start(call, place, value), own)
        self.calls.unknown_kind(call.kind, place, call.position)

    def _is_repeated(self, call: Call, place: Place, value: Value) -> bool:
        """Whether the same node, with the same name, stands in another branch."""
        if call.name is None or not isinstance(call.name.value, str) or place.copies:
            return False
        path = place.level.join(call.name.value)
        written = self._named.setdefault(path, (call, place.variables))
        if written[0] is call or written[1] != place.variables or not same_node(written[0], call):
            return False
        start = self.start(call, place, value)
        return self.paths.values.get(path, INVALID).path is not None and not follows(
            self, start, path, place, call.position
        )

    def _share_by_name(self, call: Call, place: Place, value: Value) -> Value:
        """Calls the node of the same name with another input, and warns."""
        assert call.name is not None
        assert isinstance(call.name.value, str)
        first = self._named[place.level.join(call.name.value)][0]
        message = f"two branches call `{call.name.value}`, which has the same weights in both"
        help = (
            f"the first is at line {first.position.line}; `share: {call.name.value}` says the same"
        )
        notes = (("help", help),)
        self.diagnostics.report(Diagnostic("W406", message, call.name.position, notes=notes), place)
        again = Call(Share.kind, call.position, {}, {}, call.name, None, call.origin)
        return self._composite(again, Share, place, value, None)

    def _leaf(
        self, call: Call, kind: type[Op], place: Place, value: Value, own: str | None
    ) -> Value:
        if kind.runs_code and not self.spec.allows_code:
            self._refuse_code(call, place)
        path = self._leaf_path(call, place, value, own)
        op = self.calls.arguments(call, kind, place, value)
        values = [value]
        if op.references:
            values += references(self, call, op, place, path, value)
        result = self.graph.add(path, op, values, place, call.position)
        if call.init is not None and result.shape is not None:
            node = self.graph.nodes[path]
            self.graph.nodes[path] = initialised(self, call, call.init, node, place, values)
        self.paths.values[path] = result
        return result

    def _refuse_code(self, call: Call, place: Place) -> NoReturn:
        message = f"`{call.kind}` imports and runs Python code, which this check does not allow"
        notes = (("help", ALLOW_CODE),)
        self.diagnostics.fail(place, "E117", message, call.position, notes=notes)

    def _leaf_path(self, call: Call, place: Place, value: Value, own: str | None) -> str:
        if call.flat:
            message = f"`{call.kind}` contains no nodes, so it cannot have `name: ~`"
            self.diagnostics.fail(place, "E116", message, call.position)
        return self.paths.assign(call, place, value, own or None)

    def _composite(
        self, call: Call, model: type[Composite], place: Place, value: Value, own: str | None
    ) -> Value:
        start = self.start(call, place, value)
        arguments = self.calls.arguments(call, model, place, start)
        if isinstance(arguments, From):
            if call.name is not None:
                message = "`from` computes nothing, so it takes no `name`"
                self.diagnostics.fail(place, "E101", message, call.keys["name"])
            return from_value(self, call, arguments, place, None, value)
        if isinstance(arguments, Share):
            path = self._leaf_path(call, place, start, own)
            self.graph.begin(path, start)
            result = share(self, call, arguments, place, path, start)
            self.paths.values[path] = result
            return result
        if isinstance(arguments, JoinWith):
            path = self._leaf_path(call, place, start, own)
            result = join(self, call, arguments, place, path, start)
            self.paths.values[path] = result
            return result
        if isinstance(arguments, Aux) and (call.name is None or call.flat):
            notes = (
                ("help", "in training the network returns the side head's result by its name"),
            )
            self.diagnostics.fail(place, "E102", "`aux` needs a `name`", call.position, notes=notes)
        if isinstance(arguments, Repeat | When) and call.name is None and own is None:
            inside, path = place, None
        else:
            level, path = self._inner(call, place, start, own)
            inside = place._replace(level=level)
        absent = isinstance(arguments, When) and not arguments.test
        result = value if absent else WALKS[model](self, call, arguments, inside, path, start)
        self._finish(call, path, result)
        return value if isinstance(arguments, Aux) else result

    def _block(
        self, call: Call, block: Block, place: Place, value: Value, own: str | None
    ) -> Value:
        variables = self.blocks.arguments(call, block, place, value)
        level, path = self._inner(call, place, value, own)
        calls = (*place.calls, (block, call.position))
        inside = place._replace(
            level=level, library=block.library, variables=variables, calls=calls
        )
        self.blocks.note_order(block, inside, call.position)
        whole = self.blocks.whole_body(block, inside, value)
        if whole is not None:
            return self._finish(call, path, self.node(whole, inside, value, path or NO_LEVEL))
        return self._finish(call, path, self.body(block.body, inside, value))

    def _inner(
        self, call: Call, place: Place, value: Value, own: str | None
    ) -> tuple[Level, str | None]:
        """The level inside a composite or block, and its path: None if it has no own level."""
        if call.flat or (call.name is None and own == NO_LEVEL):
            return place.level, None
        path = self.paths.assign(call, place, value, own)
        self.evaluator.spend(STEPS_A_NODE, place, call.position)
        self.graph.begin(path, value)
        return Level(path), path

    def _finish(self, call: Call, path: str | None, value: Value) -> Value:
        """Records the value of a composite or block that has a path."""
        if path is not None:
            self.paths.values[path] = value
            if value.path is not None and value.shape is not None:
                scope = Scope(path, call.kind, value.path, value.shape, call.position)
                self.graph.scopes[path] = scope
        return value
