"""Parameters of a network and of a block: their values, and whether a value may stand for a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from cnngraph.elaborate.naming import Level
from cnngraph.elaborate.place import Call, Place, Value
from cnngraph.elaborate.resolving import NOWHERE
from cnngraph.errors import Diagnostic, Notes, Position, did_you_mean, listing, show
from cnngraph.shape import TensorShape
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.expressions import UNKNOWN, is_expression
from cnngraph.spec.loader import Block
from cnngraph.spec.yaml import Located

if TYPE_CHECKING:
    from cnngraph.elaborate.walk import Walk

MAX_SIZE = 1 << 24
MAX_PARAMS = 1000


def network_params(walk: Walk, given: Mapping[str, Any]) -> dict[str, Any]:
    """The network's parameters: defaults, those of a variant, those given by the caller.

    One with a mistake is unknown: what does not depend on it is looked at all the same.
    """
    spec = walk.spec
    count_params(walk, spec.params, Place(Level(""), spec.library, {}), spec.position)
    for name in given:
        if name not in spec.params:
            notes = did_you_mean(name, spec.params)
            notes = notes or (("note", f"it has: {', '.join(spec.params) or 'none'}"),)
            walk.report(Diagnostic("E113", f"`{spec.name}` has no param `{name}`", notes=notes))
    values: dict[str, Any] = {}
    place = Place(Level(""), spec.library, values)
    missing = []
    for name, default in spec.params.items():
        try:
            declared = walk.resolve(spec.declared[name], place, NOWHERE)
            value = _frozen(given[name]) if name in given else walk.resolve(default, place, NOWHERE)
        except InvalidError:
            values[name] = UNKNOWN
            continue
        position = None if name in given else default.position
        values[name] = value
        if declared is None and value is None and not is_expression(default.value):
            missing.append(name)
            values[name] = UNKNOWN
        elif problem := _type_problem(declared, value):
            walk.report(Diagnostic("E103", f"the param `{name}` {problem}", position))
            values[name] = UNKNOWN
    if missing:
        names = listing([f"`{name}`" for name in missing])
        helps = (("help", f"give it with `--set {missing[0]}=...` or `params=`"),)
        where = spec.params[missing[0]].position
        walk.report(Diagnostic("E102", f"`{spec.name}` needs a value for {names}", where, notes=helps))
    return values


def count_params(walk: Walk, params: Mapping[str, Located], place: Place, position: Position) -> None:
    if len(params) > MAX_PARAMS:
        walk.stop(place, f"{len(params):,} params are too many: there may be {MAX_PARAMS:,}", position)


def input_shape(walk: Walk, located: Located, place: Place) -> TensorShape | None:
    """The shape of the network's input; None where it has a mistake, which is reported."""
    try:
        sizes = walk.resolve(located, place, NOWHERE)
        rule = "`input` must be [channels, height, width], or [features] for flat inputs"
        if not isinstance(sizes, tuple) or len(sizes) not in (1, 3):
            notes: Notes = ()
            if isinstance(sizes, tuple) and len(sizes) == 4:
                notes = (("help", f"the batch is implicit: write {show(sizes[1:])}"),)
            walk.fail(place, "E103", rule, located.position, notes=notes)
        for index, size in enumerate(sizes):
            if type(size) is not int or not 1 <= size <= MAX_SIZE:
                message = f"{rule}, each a whole number from 1 to {MAX_SIZE:,}, not {show(size)}"
                walk.fail(place, "E103", message, located.at((index,)))
        return TensorShape(sizes)
    except InvalidError:
        if walk.stopped:
            raise
        return None


def layout_note(shape: TensorShape) -> Notes:
    """For an input that is likely written as [height, width, channels]."""
    if len(shape) != 3 or shape[2] > 4 or min(shape[:2]) <= 4:
        return ()
    meant = show((shape[2], *shape[:2]))
    return (("help", f"`input` is [channels, height, width]; did you mean {meant}?"),)


def block_arguments(walk: Walk, call: Call, block: Block, place: Place, value: Value) -> dict[str, Any]:
    """The variables a block's body sees: the network's params if it is in the same file, and its own."""
    arguments, keys = call.arguments, call.keys
    if call.bare is not None:
        required = [name for name, default in block.params.items() if default.value is None]
        if len(required) != 1:
            message = f"`{block.name}` takes its arguments by name: {', '.join(block.params) or 'it has none'}"
            walk.fail(place, "E103", message, call.bare.position)
        arguments, keys = {required[0]: call.bare}, {required[0]: call.bare.position}
    for name in arguments:
        if name not in block.params:
            notes = did_you_mean(name, [*block.params, "name"])
            notes = notes or (("note", f"it takes: {', '.join(block.params) or 'nothing'}"),)
            message = f"the block `{block.name}` takes no `{name}`"
            walk.report(Diagnostic("E101", message, keys[name], notes=notes), place)
    missing = [name for name, default in block.params.items() if default.value is None and name not in arguments]
    if missing:
        notes = (("note", f"the block is defined at {block.position}"),)
        message = f"the block `{block.name}` needs {listing([f'`{name}`' for name in missing])}"
        walk.report(Diagnostic("E102", message, call.position, notes=notes), place)
    shared = walk.globals if block.library is walk.spec.library else {}
    inside = replace(place, variables=dict(shared))
    for name, default in block.params.items():
        inside.variables[name] = _block_argument(walk, name, default, arguments, place, inside, value)
    inside.variables.update(dict.fromkeys(missing, UNKNOWN))
    return inside.variables


def _block_argument(
    walk: Walk, name: str, default: Located, arguments: dict[str, Located],
    outside: Place, inside: Place, value: Value,
) -> Any:  # fmt: skip
    try:
        if name not in arguments:
            return walk.resolve(default, inside, value.shape)
        result = walk.resolve(arguments[name], outside, value.shape)
        declared = walk.resolve(default, inside, value.shape)
    except InvalidError:
        return UNKNOWN
    if problem := _type_problem(declared, result, pairs=True):
        walk.report(Diagnostic("E103", f"`{name}` {problem}", arguments[name].position), outside)
        return UNKNOWN
    return result


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
    if isinstance(value, float) and not isfinite(value):
        return f"must be a finite number, not {show(value)}"
    if pairs and type(default) is int and isinstance(value, tuple):
        return next(filter(None, (_type_problem(default, item) for item in value)), None)
    if default is None or (isinstance(value, type(default)) and not isinstance(value, bool)):
        return None
    if isinstance(default, bool) and isinstance(value, bool):
        return None
    if isinstance(default, float) and type(value) is int:
        return None
    if type(default) is int and isinstance(value, float) and value.is_integer():
        return f"must be a whole number, as its default {show(default)} is: write {int(value)}, not {show(value)}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    expected = words.get(type(default), "a list" if isinstance(default, tuple) else "a mapping")
    return f"must be {expected}, as its default {show(default)} is, not {show(value)}"
