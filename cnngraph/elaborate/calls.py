"""Reads nodes, `{kind: arguments}`, and validates their arguments."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import islice
from typing import Any, NamedTuple, NoReturn, TypeVar

from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import STEPS_AN_ARGUMENT, Evaluator, has_expressions
from cnngraph.elaborate.place import Call, Given, Place, Value
from cnngraph.errors import Diagnostic, Notes, Position, show
from cnngraph.ops import OPS, Op, find_op
from cnngraph.spec.arguments import InvalidError, validate
from cnngraph.spec.document import (
    COMPOSITES,
    PASS_PARAMS,
    Composite,
    Parallel,
    argument_names,
    main_key,
    written_fields,
)
from cnngraph.spec.expressions import is_expression
from cnngraph.spec.suggestions.arguments import suggest_names
from cnngraph.spec.suggestions.kinds import same_kind, suggest_kind
from cnngraph.spec.yaml import Located

Model = TypeVar("Model", bound=Op | Composite)


_MOST_BLOCKS = 1000
_NO_VALUES = "[]"
"""The key of a result that depends on no expression."""


class _Known(NamedTuple):
    """A call as read, its arguments with expressions, and its models by the values of those."""

    call: Call
    expressions: list[Located]
    results: dict[str, Any]


class Calls:
    """Reads and validates nodes; results that no expression can change are kept for the copies."""

    def __init__(self, diagnostics: Diagnostics, evaluator: Evaluator) -> None:
        self._diagnostics = diagnostics
        self._evaluator = evaluator
        self._calls: dict[Hashable, tuple[Located, Call]] = {}
        self._known: dict[int, _Known] = {}
        self._equal: dict[Hashable, Any] = {}
        self._rows_noted = False

    def read(self, located: Located, place: Place, value: Value) -> Call:
        """The node as written; its kind may be an expression. Raises `InvalidError`."""
        if (known := self._calls.get(id(located))) is not None:
            return known[1]
        kind, position, inner = located.value, located.position, None
        if isinstance(kind, dict):
            if len(kind) != 1 or not is_kind(next(iter(kind)), place):
                self._refuse_other_forms(located, place)
            if len(kind) != 1:
                self._not_a_node(located, place)
            ((kind, inner),) = kind.items()
            position = located.keys[kind]
        if not isinstance(kind, str) or not kind:
            message = f"a node is `kind` or `kind: arguments`, not {show(located.plain())}"
            self._diagnostics.fail(place, "E107", message, position)
        key: Hashable = id(located)
        if is_expression(kind):
            kind = self._evaluator.resolve(Located(kind, position), place, value.shape)
            if not isinstance(kind, str):
                message = f"a node's kind must be text, not {show(kind)}"
                self._diagnostics.fail(place, "E107", message, position)
            kind = str(kind)
            key = (key, kind)
        if inner is not None and PASS_PARAMS in inner.entries and place.calls:
            key = (key, id(place.calls[-1][0]))  # an alias may stand in several blocks
        if (known := self._calls.get(key)) is not None:
            return known[1]
        call = self._call(kind, position, inner, place)
        self._calls[key] = located, call
        return call

    def _call(self, kind: str, position: Position, inner: Located | None, place: Place) -> Call:
        if inner is None or inner.value is None:
            return Call(kind, position, {}, {}, None, None)
        if kind == Parallel.kind:
            inner = _with_branches(inner)
        if not isinstance(inner.value, dict):
            return Call(kind, position, {}, {}, inner, None)
        arguments = dict(inner.value)
        keys = inner.keys
        if PASS_PARAMS in arguments:
            passed = self._passed_params(kind, arguments.pop(PASS_PARAMS), keys, place)
            arguments = {**passed, **arguments}
            keys = {**dict.fromkeys(passed, keys[PASS_PARAMS]), **keys}
        name, origin = arguments.pop("name", None), arguments.pop("from", None)
        init = arguments.pop("init", None) if _takes_init(kind, place) else None
        return Call(kind, position, arguments, keys, None, name, origin, init)

    def _passed_params(
        self, kind: str, wanted: Located, keys: dict[str, Position], place: Place
    ) -> dict[str, Located]:
        """The params of the enclosing block that the node also takes, as arguments."""
        position = keys[PASS_PARAMS]
        if not isinstance(wanted.value, bool):
            message = f"`{PASS_PARAMS}` must be true or false, not {show(wanted.plain())}"
            self._diagnostics.fail(place, "E103", message, wanted.position)
        if not wanted.value:
            return {}
        if not place.calls:
            message = f"`{PASS_PARAMS}` passes on the params of a block, and this node is in none"
            self._diagnostics.fail(place, "E103", message, position)
        enclosing, _ = place.calls[-1]
        block, op = place.library.blocks.get(kind), find_op(kind)
        taken = block.params if block else argument_names(op) if op else ()
        shared = [name for name in enclosing.params if name in taken]
        if not shared:
            message = f"`{kind}` takes none of the params of `{enclosing.name}`"
            self._diagnostics.fail(place, "E103", message, position)
        return {name: Located(f"${{{name}}}", position) for name in shared}

    def _refuse_other_forms(self, located: Located, place: Place) -> None:
        """Reports a node written as `{type: conv2d, out_channels: 8}`."""
        for key in ("type", "kind", "op", "layer"):
            written = located.entries[key].value if key in located.entries else None
            if not isinstance(written, str):
                continue
            kind = written if is_kind(written, place) else same_kind(written, _kinds(place))
            if kind is not None:
                others = len(located.entries) > 1
                help = f"write `{kind}: {{...}}`" if others else f"write `{kind}`"
                message = f"a node is a single `kind: arguments`, without `{key}`"
                notes = (("help", f"{help}: the key of a node is its kind"),)
                self._diagnostics.fail(place, "E107", message, located.keys[key], notes=notes)

    def _not_a_node(self, located: Located, place: Place) -> NoReturn:
        fail = self._diagnostics.fail
        keys = list(located.entries)
        if not keys:
            fail(place, "E107", "an empty mapping is not a node", located.position)
        names = ", ".join(keys[:5])
        position = located.keys[keys[0]]
        if all(is_kind(key, place) for key in keys[:5]):
            message = f"each node needs a dash of its own; this has {len(keys)}: {names}"
            first, second = (_as_item(key, located.entries[key]) for key in keys[:2])
            help = f"write `{first}`, `{second}` and so on, each on a line of its own"
            fail(place, "E107", message, position, notes=(("help", help),))
        first = located.entries[keys[0]]
        kind = next(iter(first.entries), None) or first.value
        if isinstance(kind, str) and is_kind(kind, place) and not is_kind(keys[0], place):
            message = f"nodes are items of a list; this is a mapping from names: {names}"
            help = f"write `- {kind}: {{name: {keys[0]}, ...}}`"
            fail(place, "E107", message, position, notes=(("help", help),))
        message = f"a node is a single `kind: arguments`; this has {len(keys)} keys: {names}"
        help = f"indent `{keys[1]}` under `{keys[0]}:`, or start another node with `- `"
        fail(place, "E107", message, position, notes=(("help", help),))

    def refuse_row(self, located: Located, place: Place) -> None:
        """Reports the first list such as `[-1, 1, Conv, [64, 3, 2]]` in the place of a node.

        Raises `InvalidError` for this one and all others.
        """
        if not any(type(item.value) in (int, float, bool) for item in located.items):
            return
        if self._rows_noted:
            raise InvalidError
        self._rows_noted = True
        message = f"a node is `kind` or `kind: arguments`, not {show(located.plain())}"
        help = "write each layer as `- conv2d: {out_channels: 64, kernel_size: 3, stride: 2}`"
        self._diagnostics.fail(place, "E107", message, located.position, notes=(("help", help),))

    def arguments(self, call: Call, model: type[Model], place: Place, value: Value) -> Model:
        """The validated arguments of an op or a composite. Raises `InvalidError`.

        Equal arguments of the same call give the same instance.
        """
        known = self._known.get(id(call))
        if known is None:
            known = self._known[id(call)] = _Known(call, _expressions(call, model), {})
        elif not known.expressions and _NO_VALUES in known.results:
            return known.results[_NO_VALUES]
        resolved: dict[int, Any] = {}

        def resolve(located: Located) -> Any:
            if id(located) not in resolved:
                given = self._evaluator.resolve(located, place, value.shape)
                resolved[id(located)] = Given.plain(given)
            return resolved[id(located)]

        try:
            identity = repr([resolve(item) for item in known.expressions])
        except InvalidError:
            identity = None  # validated all the same, so that other mistakes are reported
        if identity in known.results:
            return known.results[identity]
        result = self._validate(call, model, place, resolve)
        if identity is not None:
            known.results[identity] = result
        return result

    def _validate(
        self, call: Call, model: type[Model], place: Place, resolve: Callable[[Located], Any]
    ) -> Model:
        arguments, keys = call.arguments, call.keys
        self._evaluator.spend(STEPS_AN_ARGUMENT * (1 + len(arguments)), place, call.position)
        if call.bare is not None:
            self._refuse_dashes(call, model, call.bare, place)
            key = main_key(model)
            if key is None:
                message, notes = suggest_names(call.kind, model, call.bare)
                self._diagnostics.fail(place, "E103", message, call.bare.position, notes=notes)
            arguments, keys = {key: call.bare}, {key: call.bare.position}
        return validate(
            model,
            arguments,
            keys,
            what=f"`{call.kind}`",
            position=call.position,
            resolve=resolve,
            report=lambda diagnostic: self._diagnostics.report(diagnostic, place),
            equal=self._equal if issubclass(model, Op) else None,
            variables=place.variables,
        )

    def _refuse_dashes(
        self, call: Call, model: type[Op | Composite], bare: Located, place: Place
    ) -> None:
        """Reports arguments of a composite that are written as items of a list, with dashes."""
        if issubclass(model, Op) or not isinstance(bare.value, list):
            return
        names = argument_names(model)
        found = False
        for item in bare.value:
            key = next(iter(item.value)) if isinstance(item.value, dict) and item.value else None
            if key in names and not is_kind(key, place):
                notes = (("help", f"`{key}` is an argument of `{call.kind}`: remove the dash"),)
                message = f"there is no op or block `{key}`"
                diagnostic = Diagnostic("E104", message, item.keys[key], notes=notes)
                self._diagnostics.report(diagnostic, place)
                found = True
        if found:
            raise InvalidError

    def unknown_kind(self, kind: str, place: Place, position: Position, *others: str) -> NoReturn:
        """Reports an unknown kind. `others` are further words that are valid in this place."""
        if not place.library.complete or kind in place.library.broken:
            raise InvalidError

        def notes() -> Notes:
            return suggest_kind(kind, [*others, *_kinds(place)]) or (
                ("help", "`cnngraph ops` lists all ops"),
            )

        message = f"there is no op or block `{kind}`"
        self._diagnostics.fail(place, "E104", message, position, notes=notes)


def _expressions(call: Call, model: type[Op | Composite]) -> list[Located]:
    """The arguments whose value depends on expressions."""
    raw = written_fields(model)
    given = [(key, item) for key, item in call.arguments.items() if key in raw]
    if call.bare is not None and (key := main_key(model)) is not None:
        given = [(key, call.bare)]
    return [item for key, item in given if not raw[key] and has_expressions(item)]


def _takes_init(kind: str, place: Place) -> bool:
    """Whether `init` says how the weights of such a node start; it is an argument of `prelu`."""
    op = None if kind in place.library.blocks else find_op(kind)
    return op is not None and "init" not in written_fields(op)


def is_kind(word: str, place: Place) -> bool:
    """Whether a node may have this kind: a composite, a block or an op."""
    return word in COMPOSITES or word in place.library.blocks or find_op(word) is not None


def _kinds(place: Place) -> list[str]:
    """The kinds that a node may have, for suggestions: of very many blocks, the first."""
    return [*COMPOSITES, *OPS, *islice(place.library.blocks, _MOST_BLOCKS)]


def _as_item(kind: str, arguments: Located) -> str:
    """A node as an item of a list, its arguments shortened."""
    value = arguments.value
    if value is None:
        return f"- {kind}"
    return f"- {kind}: {'...' if isinstance(value, dict | list) else show(value)}"


def _with_branches(located: Located) -> Located:
    """`{left: ..., right: ...}` under `parallel:` as `{branches: {left: ..., right: ...}}`."""
    if not isinstance(located.value, dict) or "branches" in located.value:
        return located
    options = {key: item for key, item in located.value.items() if key in ("name", "from", "merge")}
    branches = {key: item for key, item in located.value.items() if key not in options}
    if not branches:
        return located
    inner = Located(branches, located.position, located.keys)
    return Located({**options, "branches": inner}, located.position, located.keys)
