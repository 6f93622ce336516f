"""Calls of blocks: the variables their bodies see, and the order of their weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import Evaluator
from cnngraph.elaborate.params import count_params, type_problem
from cnngraph.elaborate.place import Call, Given, Level, Place, Value
from cnngraph.errors import Diagnostic, Notes, Position, did_you_mean, listing
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.document import COMPOSITES
from cnngraph.spec.expressions import UNKNOWN
from cnngraph.spec.spec import Block, Spec
from cnngraph.spec.yaml import Located


class Blocks:
    """Prepares calls of blocks, and remembers which blocks were called.

    Attributes:
        params: values of the network's params, which the blocks of the same file can see.
        order: path -> names of the children whose weights come first, for `Graph.order`.
    """

    def __init__(self, spec: Spec, diagnostics: Diagnostics, evaluator: Evaluator) -> None:
        self._spec = spec
        self._diagnostics = diagnostics
        self._evaluator = evaluator
        self.params: Mapping[str, Any] = {}
        self.order: dict[str, tuple[str, ...]] = {}
        self._called: set[int] = set()
        self._ordered: dict[int, tuple[Block, list[str]]] = {}

    def arguments(self, call: Call, block: Block, place: Place, value: Value) -> dict[str, Any]:
        """The variables of a block's body. Mistakes in arguments are reported and leave unknowns.

        Raises `InvalidError` if the block contains itself, or if its params exceed a limit.
        """
        if any(caller is block for caller, _ in place.calls):
            callers = [caller.name for caller, _ in place.calls]
            chain = " -> ".join([*callers, block.name])
            message = f"the block `{block.name}` contains itself: {chain}"
            self._diagnostics.fail(place, "E106", message, call.position)
        self._called.add(id(block))
        count_params(block.params, place, block.position, self._diagnostics)
        self._evaluator.spend(len(block.params) // 4, place, call.position)
        arguments, keys = self._given(call, block, place)
        for name in arguments:
            if name not in block.params:
                message = f"the block `{block.name}` does not accept `{name}`"
                unknown = Diagnostic("E101", message, keys[name])
                self._diagnostics.report(unknown, place, None, partial(_similar, name, block))
        missing = [name for name in block.required if name not in arguments]
        if missing:
            notes = (("note", f"the block is defined at {block.position}"),)
            message = f"the block `{block.name}` needs {listing([f'`{name}`' for name in missing])}"
            self._diagnostics.report(Diagnostic("E102", message, call.position, notes=notes), place)
        variables = dict(self.params if block.library is self._spec.library else {})
        inside = place._replace(variables=variables)
        for name, default in block.params.items():
            given = arguments.get(name)
            variables[name] = self._argument(name, default, given, place, inside, value)
        variables.update(dict.fromkeys(missing, UNKNOWN))
        return variables

    def _given(
        self, call: Call, block: Block, place: Place
    ) -> tuple[dict[str, Located], dict[str, Position]]:
        """The arguments by name, and the positions of the names."""
        if call.bare is None:
            return call.arguments, call.keys
        required = block.required
        if len(required) != 1:
            names = ", ".join(block.params)
            message = f"`{block.name}` takes its arguments by name: {names}"
            if not names:
                message = f"`{block.name}` takes no arguments"
            self._diagnostics.fail(place, "E103", message, call.bare.position)
        return {required[0]: call.bare}, {required[0]: call.bare.position}

    def _argument(
        self,
        name: str,
        default: Located,
        given: Located | None,
        outside: Place,
        inside: Place,
        value: Value,
    ) -> Any:
        try:
            if given is None:
                return self._evaluator.resolve(default, inside, value.shape)
            result = self._evaluator.resolve(given, outside, value.shape)
            result = Given.at(result, outside.level.path)
            declared = self._evaluator.resolve(default, inside, value.shape)
        except InvalidError:
            return UNKNOWN
        if problem := type_problem(declared, result, pairs=True):
            message = f"`{name}` {problem}"
            self._diagnostics.report(Diagnostic("E103", message, given.position), outside)
            return UNKNOWN
        return result

    def whole_body(self, block: Block, place: Place, value: Value) -> Located | None:
        """The single composite or block that is the whole body, and so shares the block's level."""
        body = block.body
        if not isinstance(body.value, list):
            return body
        if len(body.value) != 1:
            return None
        item: Located = body.value[0]
        kind = next(iter(item.value), None) if isinstance(item.value, dict) else item.value
        if isinstance(kind, str):
            kind = self._evaluator.resolve(Located(kind, item.position), place, value.shape)
        shares = isinstance(kind, str) and (kind in COMPOSITES or kind in place.library.blocks)
        return item if shares else None

    def note_order(self, block: Block, place: Place, position: Position) -> None:
        """Records the block's `order` for the level its body is in."""
        if block.order is None:
            return
        path = place.level.path
        names = (*self.order.get(path, ()), *block.order.plain())
        self._evaluator.spend(len(names) // 4, place, position)
        self.order[path] = tuple(dict.fromkeys(names))
        self._ordered.setdefault(id(block), (block, []))[1].append(path)

    def uncalled(self) -> Iterable[tuple[Block, Place]]:
        """The spec's own blocks that no node has called so far, and a place to walk each in."""
        library = self._spec.library
        for block in library.blocks.values():
            if block.library is library and id(block) not in self._called:
                variables = {**self.params, **dict.fromkeys(block.params, UNKNOWN)}
                level = Level(f"(block {block.name})")
                yield block, Place(level, library, variables, unused=True)

    def check_order(self, paths: Iterable[str]) -> None:
        """Reports names in `order` that no call of the block has; `paths` are all nodes'."""
        if not self._ordered:
            return
        children: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            parent, _, name = path.rpartition(".")
            children[parent].append(name)
        for block, places in self._ordered.values():
            assert block.order is not None
            known = {name for path in places for name in children[path]}
            for index, name in enumerate(block.order.plain()):
                if name not in known and not self._diagnostics.stopped:
                    message = f"the block `{block.name}` has no node `{name}` to put in order"
                    found = ", ".join(sorted(known))
                    notes = did_you_mean(name, known) or (("note", f"it has: {found}"),)
                    position = block.order.at((index,))
                    self._diagnostics.report(Diagnostic("E109", message, position, notes=notes))


def _similar(name: str, block: Block) -> Notes:
    """A param that is similar to `name`, or all of them."""
    accepted = ", ".join(block.params) or "nothing"
    return did_you_mean(name, [*block.params, "name"]) or (("note", f"it accepts: {accepted}"),)
