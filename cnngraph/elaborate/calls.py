"""Nodes as written: `{kind: arguments}`, and their arguments."""

from __future__ import annotations

from typing import Any, NoReturn

from cnngraph.elaborate.paths import Paths
from cnngraph.elaborate.place import Call, Place, Value
from cnngraph.errors import Diagnostic, Notes, Position, show
from cnngraph.ops import OPS, Op, find_op
from cnngraph.spec.arguments import InvalidError, validate
from cnngraph.spec.document import COMPOSITES, Parallel, argument_names
from cnngraph.spec.expressions import is_expression
from cnngraph.spec.suggestions import call_by_name, meant_kind
from cnngraph.spec.yaml import Located


class Calls(Paths):
    """Reads nodes, and validates what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, tuple[Located, Call]] = {}
        self.equal: dict[Any, Op] = {}

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
        for key in ("type", "kind", "op", "layer"):
            written = located.value[key].value if key in located.value else None
            if isinstance(written, str) and (
                written in COMPOSITES or written in place.library.blocks or find_op(written)
            ):
                notes = (("help", f"write `{written}: {{...}}`: the key of a node is its kind"),)
                self.fail(
                    place, "E107", f"a node is one `kind: arguments`, without `{key}`", located.keys[key], notes=notes
                )
        notes = (("help", f"indent `{keys[1]}` under `{first}:`, or start a node of its own with `- `"),)
        message = f"a node is one `kind: arguments`, but this mapping has {len(keys)} keys: {', '.join(keys[:5])}"
        self.fail(place, "E107", message, located.keys[first], notes=notes)

    def arguments(self, call: Call, model: type[Any], main: str | None, place: Place, value: Value) -> Any:
        """The validated arguments of an op or a composite. Raises `InvalidError` after reporting."""
        arguments, keys = call.arguments, call.keys
        if call.bare is not None:
            self.refuse_dashes(call, model, call.bare, place)
            if main is None:
                message, notes = call_by_name(call.kind, model, call.bare)
                self.fail(place, "E103", message, call.bare.position, notes=notes)
            key = model.model_fields[main].alias or main
            arguments, keys = {key: call.bare}, {key: call.bare.position}
        return validate(
            model, arguments, keys,
            what=f"`{call.kind}`", position=call.position,
            resolve=lambda located: self.resolve(located, place, value.shape),
            report=lambda diagnostic: self.report(diagnostic, place),
            equal=self.equal if issubclass(model, Op) else None,
        )  # fmt: skip

    def refuse_dashes(self, call: Call, model: type[Any], bare: Located, place: Place) -> None:
        """Arguments of a composite that are written as items of a list, each with a dash."""
        if issubclass(model, Op) or not isinstance(bare.value, list):
            return
        names = argument_names(model)
        found = False
        for item in bare.value:
            key = next(iter(item.value)) if isinstance(item.value, dict) and item.value else None
            if key in names and not (key in COMPOSITES or key in place.library.blocks or find_op(key)):
                notes = (("help", f"`{key}` is an argument of `{call.kind}`: drop the dash"),)
                message = f"there is no op or block `{key}`"
                self.report(Diagnostic("E104", message, item.keys[key], notes=notes), place)
                found = True
        if found:
            raise InvalidError

    def unknown_kind(self, kind: str, place: Place, position: Position, *others: str) -> NoReturn:
        """Ends a node of a kind that there is not; `others` are words that may stand there too."""
        if not place.library.complete or kind in place.library.broken:
            raise InvalidError

        def notes() -> Notes:
            known = [*others, *COMPOSITES, *OPS, *place.library.blocks]
            return meant_kind(kind, known) or (("help", "`python -m cnngraph ops` lists what there is"),)

        self.fail(place, "E104", f"there is no op or block `{kind}`", position, notes=notes)


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
