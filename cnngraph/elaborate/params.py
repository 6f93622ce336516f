"""The network's params and input shape: their values, checked against what the spec declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any, cast

from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import NO_SHAPE, Evaluator
from cnngraph.elaborate.naming import name_problem
from cnngraph.elaborate.place import Level, Place
from cnngraph.errors import Diagnostic, Notes, Position, did_you_mean, is_list, listing, show
from cnngraph.graph import INPUT
from cnngraph.shape import TensorShape
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.document import MAX_TEXT
from cnngraph.spec.expressions import UNKNOWN, is_expression
from cnngraph.spec.spec import Spec
from cnngraph.spec.yaml import Located

MAX_SIZE = 1 << 24
MAX_RANK = 4
"""The most dimensions of an input, without the batch."""
MAX_PARAMS = 1000


def network_params(
    spec: Spec, given: Mapping[str, Any], diagnostics: Diagnostics, evaluator: Evaluator
) -> dict[str, Any]:
    """Values of the network's params: those `given` from Python, and the spec's own otherwise.

    A param with a mistake is reported and becomes unknown, so that the walk can go on.
    """
    values: dict[str, Any] = {}
    place = Place(Level(""), spec.library, values)
    count_params(spec.params, place, spec.position, diagnostics)
    for name in given:
        if name not in spec.params and name != INPUT:
            notes = did_you_mean(name, spec.params)
            notes = notes or (("note", f"its params are: {', '.join(spec.params) or 'none'}"),)
            diagnostics.report(
                Diagnostic("E113", f"`{spec.name}` has no param `{name}`", notes=notes)
            )
    missing: list[str] = []
    for name, default in spec.params.items():
        try:
            declared = evaluator.resolve(spec.declared[name], place, NO_SHAPE)
            value = (
                _frozen(given[name])
                if name in given
                else (evaluator.resolve(default, place, NO_SHAPE))
            )
        except InvalidError:
            values[name] = UNKNOWN
            continue
        values[name] = value
        if declared is None and value is None and not is_expression(default.value):
            missing.append(name)
            values[name] = UNKNOWN
        elif problem := type_problem(declared, value):
            position = None if name in given else default.position
            diagnostics.report(Diagnostic("E103", f"the param `{name}` {problem}", position))
            values[name] = UNKNOWN
    if missing:
        names = listing([f"`{name}`" for name in missing])
        notes = (("help", f"pass it with `--set {missing[0]}=...` or `params=`"),)
        where = spec.params[missing[0]].position
        message = f"`{spec.name}` needs a value for {names}"
        diagnostics.report(Diagnostic("E102", message, where, notes=notes))
    return values


def count_params(
    params: Mapping[str, Located], place: Place, position: Position, diagnostics: Diagnostics
) -> None:
    """Ends the walk if there are more than `MAX_PARAMS`."""
    if len(params) > MAX_PARAMS:
        message = f"there are {len(params):,} params; at most {MAX_PARAMS:,} are allowed"
        diagnostics.stop(place, message, position)


def input_shapes(
    spec: Spec, given: Any, place: Place, diagnostics: Diagnostics, evaluator: Evaluator
) -> dict[str, TensorShape] | None:
    """The shapes of the network's inputs by name; None after reporting a mistake in them.

    `given` replaces the shape in the spec, or the shapes by name; None replaces nothing.
    """
    shapes = _written_shapes(spec, place, diagnostics, evaluator)
    if given is None or shapes is None:
        return shapes
    if not isinstance(given, Mapping):
        if len(shapes) > 1:
            names = ", ".join(f"{name}: [...]" for name in shapes)
            message = f"`{spec.name}` has several inputs: `input` must be a mapping, {{{names}}}"
            diagnostics.report(Diagnostic("E103", message))
            return None
        given = {next(iter(shapes)): given}
    for name, sizes in cast(Mapping[Any, Any], given).items():
        sizes = _frozen(sizes)
        if name not in shapes:
            notes = did_you_mean(str(name), shapes)
            message = f"`{spec.name}` has no input {show(name)}"
            diagnostics.report(Diagnostic("E113", message, notes=notes))
            return None
        if problem := _shape_problem(name, sizes):
            message, notes, _ = problem
            diagnostics.report(Diagnostic("E103", message, notes=notes))
            return None
        shapes[name] = TensorShape(sizes)
        _warn_of_order(name, shapes[name], None, diagnostics)
    return shapes


def _written_shapes(
    spec: Spec, place: Place, diagnostics: Diagnostics, evaluator: Evaluator
) -> dict[str, TensorShape] | None:
    if spec.input is not None:
        shape = _input_shape(INPUT, spec.input, place, diagnostics, evaluator)
        return None if shape is None else {INPUT: shape}
    if spec.inputs is None:
        return None
    shapes: dict[str, TensorShape] = {}
    for name, located in spec.inputs.entries.items():
        problem = None if name == INPUT else name_problem(name)
        if problem or not name.isidentifier():
            problem = problem or f"an input is an argument of `forward`, so not `{name}`"
        elif len(name) > MAX_TEXT:
            problem = f"the name of an input has at most {MAX_TEXT} characters, not {len(name):,}"
        elif "__" in name or name.endswith("_"):
            problem = f"an input's name has single underscores inside it, unlike `{name}`"
        if problem:
            diagnostics.report(Diagnostic("E116", problem, spec.inputs.keys[name]))
            continue
        shape = _input_shape(name, located, place, diagnostics, evaluator)
        if shape is not None:
            shapes[name] = shape
    if not spec.inputs.entries:
        message = "`inputs` must be a mapping from the name of each input to its shape"
        diagnostics.report(Diagnostic("E103", message, spec.inputs.position))
    return shapes if 0 < len(shapes) == len(spec.inputs.entries) else None


def _input_shape(
    name: str, located: Located, place: Place, diagnostics: Diagnostics, evaluator: Evaluator
) -> TensorShape | None:
    """The shape of an input; None after reporting a mistake in it."""
    try:
        sizes = evaluator.resolve(located, place, NO_SHAPE)
        if problem := _shape_problem(name, sizes):
            message, notes, index = problem
            diagnostics.fail(place, "E103", message, located.at(index), notes=notes)
        shape = TensorShape(sizes)
        _warn_of_order(name, shape, located.position, diagnostics)
        return shape
    except InvalidError:
        if diagnostics.stopped:
            raise
        return None


def _shape_problem(name: str, sizes: Any) -> tuple[str, Notes, tuple[int, ...]] | None:
    """Why a value is no shape of an input, notes on it, and the index of the wrong size."""
    rule = f"`{name}` must be [channels, height, width], or [features] for flat inputs"
    if not is_list(sizes) or not 1 <= len(sizes) <= MAX_RANK:
        notes: Notes = ()
        if is_list(sizes) and len(sizes) == MAX_RANK + 1:
            notes = (("help", f"the batch is implicit: write {show(sizes[1:])}"),)
        return rule, notes, ()
    for index, size in enumerate(sizes):
        if type(size) is not int or not 1 <= size <= MAX_SIZE:
            message = f"{rule}, each a whole number from 1 to {MAX_SIZE:,}, not {show(size)}"
            return message, (), (index,)
    return None


def _warn_of_order(
    name: str, shape: TensorShape, position: Position | None, diagnostics: Diagnostics
) -> None:
    """Warns of an input that was probably written with a batch, or with the channels last."""
    colours = (1, 3, 4)
    if len(shape) == 3 and shape[2] in colours and shape[0] not in colours:
        message = f"`{name}` is [channels, height, width]: {show(shape)} has {shape[0]} channels"
        likely = (shape[2], *shape[:2])
    elif len(shape) == 4 and shape[1] in colours and min(shape[2:]) > max(colours):
        message = f"`{name}` is without the batch: {show(shape)} is a volume of depth {shape[1]}"
        likely = shape[1:]
    else:
        return
    notes = (("help", f"did you mean {show(likely)}?"),)
    diagnostics.report(Diagnostic("W404", message, position, notes=notes))


def _frozen(value: Any) -> Any:
    """A param given from Python as a value of the language; NumPy values are converted."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, cast(Sequence[Any], value)))
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


_SCALARS = frozenset({bool, int, str})


def type_problem(default: Any, value: Any, pairs: bool = False) -> str | None:
    """Why `value` cannot replace `default`, or None. A default of none accepts any value.

    With `pairs`, a list of numbers can replace a number, as in a kernel size.
    """
    kind: type[Any] = type(value)
    expected: type[Any] = type(default)
    if kind in _SCALARS and (default is None or kind is expected):
        return None
    if value is not None and not issubclass(kind, bool | int | float | str | tuple):
        what = "a mapping" if kind is dict else f"an object of type {kind.__name__}"
        return f"must be a number, text or a list, not {what}"
    if isinstance(value, float) and not isfinite(value):
        return f"must be a finite number, not {show(value)}"
    if pairs and type(default) is int and is_list(value):
        return next(filter(None, (type_problem(default, item) for item in value)), None)
    same = isinstance(value, expected) and isinstance(value, bool) == isinstance(default, bool)
    if default is None or same or (isinstance(default, float) and kind is int):
        return None
    like = f"like its default {show(default)}"
    if type(default) is int and isinstance(value, float) and value.is_integer():
        return f"must be a whole number, {like}: write {int(value)}, not {show(value)}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    word = "a list" if is_list(default) else words.get(expected, "a mapping")
    return f"must be {word}, {like}, not {show(value)}"
