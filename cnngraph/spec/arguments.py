"""Validates a mapping of a spec by a pydantic model, and reports mistakes in this project's words.

No text of pydantic is shown, so that diagnostics do not depend on its version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from cnngraph.errors import MAX_MISTAKES, Diagnostic, Position, did_you_mean, listing, show
from cnngraph.spec.document import argument_names, written_fields
from cnngraph.spec.suggestions.arguments import similar_field, suggest_argument, suggest_second
from cnngraph.spec.suggestions.values import suggest_value
from cnngraph.spec.yaml import Located

Model = TypeVar("Model", bound=BaseModel)
Report = Callable[[Diagnostic], None]


class InvalidError(Exception):
    """Something is invalid, and every mistake in it has been reported."""


def validate(
    model: type[Model],
    arguments: dict[str, Located],
    keys: dict[str, Position],
    *,
    what: str,
    position: Position,
    resolve: Callable[[Located], Any],
    report: Report,
    equal: dict[Any, Any] | None = None,
    variables: Collection[str] = (),
) -> Model:
    """An instance of `model` from located arguments.

    Args:
        keys: the positions of the keys of `arguments`.
        what: what the arguments belong to, for messages; `position` is where it is.
        resolve: evaluates an argument; raises `InvalidError` after reporting a mistake in it.
            Fields marked `RAW` are not resolved.
        equal: instances made so far, shared by equal arguments. Only for models without `RAW`.
        variables: the names that expressions can read, for suggestions.

    Raises:
        InvalidError: after reporting every mistake.
    """
    fields = written_fields(model)
    values: dict[str, Any] = {}
    unknown: dict[str, Located] = {}
    valid = True
    for key, argument in arguments.items():
        if key not in fields:
            unknown[key] = argument
            continue
        try:
            values[key] = argument if fields[key] else resolve(argument)
        except InvalidError:
            valid = False
    similar = (
        _report_unknown(unknown, arguments, keys, model, what, report) if unknown else frozenset()
    )
    valid = valid and not unknown
    identity = (model, repr(values)) if equal is not None else None
    if valid and equal is not None and identity in equal:
        return equal[identity]
    try:
        instance = model.model_validate(values)
    except ValidationError as error:
        located = Located(arguments, position, keys)
        for diagnostic in _mistakes(error, model, located, similar, what, variables):
            report(diagnostic)
        raise InvalidError from None
    if not valid:
        raise InvalidError
    if equal is not None:
        equal[identity] = instance
    return instance


def _report_unknown(
    unknown: Mapping[str, Located],
    arguments: Mapping[str, Located],
    keys: Mapping[str, Position],
    model: type[BaseModel],
    what: str,
    report: Report,
) -> frozenset[str]:
    """Reports unknown keys. Returns the fields that they probably stand for."""
    similar: set[str] = set()
    fields = argument_names(model)
    cut = any(str(argument.value).startswith("(") for argument in arguments.values())
    for key, argument in list(unknown.items())[:MAX_MISTAKES]:
        if cut and argument.value is None and key.endswith(")"):
            continue  # the second half of `kernel_size: (3, 3)`; the first half is reported
        found = suggest_argument(model, what, key, argument, fields)
        similar.update(found.stands_for)
        message = f"{what} does not accept `{key}`"
        report(Diagnostic("E101", message, keys[key], notes=found.notes))
    return frozenset(similar)


def valid_part(
    model: type[Model], located: Located, **defaults: Any
) -> tuple[Located, Model | None]:
    """The valid entries of a mapping with mistakes, and an instance made of them.

    A misspelt key counts as the field it resembles, and `defaults` replace missing entries. The
    instance is None if a required entry is missing. All keys keep their positions.
    """
    fields = written_fields(model)
    kept: dict[str, Located] = {}
    values = dict(defaults)
    keys: dict[str, Position] = {}
    for written, item in located.entries.items():
        close = written if written in fields else similar_field(written, fields)
        taken = close != written and close in located.entries
        key = written if close is None or taken else close
        keys[key] = located.keys[written]
        if key not in fields:
            continue
        value = item if fields[key] else item.plain()
        try:
            model.model_validate({**defaults, key: value})
        except ValidationError as error:
            if any(mistake["loc"][:1] == (key,) for mistake in error.errors()):
                continue
        kept[key] = item
        values[key] = value
    try:
        instance = model.model_validate(values)
    except ValidationError:
        instance = None
    return Located(kept, located.position, keys, located.size), instance


def _mistakes(
    error: ValidationError,
    model: type[BaseModel],
    located: Located,
    similar: frozenset[str],
    what: str,
    variables: Collection[str],
) -> Iterator[Diagnostic]:
    """A diagnostic for each value that pydantic refused, and one for all missing arguments."""
    missing: list[str] = []
    refused: dict[tuple[int | str, ...], list[Any]] = {}
    for item in error.errors():
        path = _visible(item["loc"], item["type"], located)
        if item["type"] == "missing" and len(path) == 1:
            if path[0] not in located.entries and path[0] not in similar:
                missing.append(f"`{path[0]}`")
        elif not path or path[0] in located.entries:
            refused.setdefault(path, []).append(item)
    for path, items in refused.items():
        yield _mistake(path, items, model, located, what, variables)
    if missing:
        yield Diagnostic("E102", f"{what} needs {listing(missing)}", located.position)


def _visible(location: tuple[int | str, ...], type: str, located: Located) -> tuple[int | str, ...]:
    """A pydantic location without the steps that name members of a union instead of keys."""
    ends_in_key = type in ("missing", "extra_forbidden")
    path: list[int | str] = []
    for index, step in enumerate(location):
        inside = located.follow(tuple(path)).value
        known = isinstance(inside, dict) and step in inside
        if known or isinstance(step, int) or (ends_in_key and index == len(location) - 1):
            path.append(step)
    return tuple(path)


def _mistake(
    path: tuple[int | str, ...],
    items: list[Any],
    model: type[BaseModel],
    whole: Located,
    what: str,
    variables: Collection[str],
) -> Diagnostic:
    """One refused value, which may be nested; `items` say why, each for a member of a union."""
    item = items[0]
    name, outer = ".".join(map(str, path)), ".".join(map(str, path[:-1]))
    located = whole.follow(path)
    if item["type"] == "extra_forbidden":
        key = str(path[-1])
        known = argument_names(_model_at(model, path[:-1]))
        notes = did_you_mean(key, known) or (("note", f"`{outer}` accepts: {', '.join(known)}"),)
        position = whole.follow(path[:-1]).keys.get(key) or located.position
        return Diagnostic("E101", f"`{outer}` does not accept `{key}`", position, notes=notes)
    if item["type"] == "missing":
        return Diagnostic("E102", f"`{outer}` needs `{path[-1]}`", located.position)
    reasons = dict.fromkeys(_expectation(item, model, path) for item in items)
    expectation = " or ".join(filter(None, reasons)).replace(" or must be ", " or ")
    if not path:
        return Diagnostic("E103", f"{what} {expectation or 'is invalid'}", located.position)
    value = item["input"].plain() if isinstance(item["input"], Located) else item["input"]
    shown = "a mapping" if isinstance(value, dict) else show(value)
    message = (
        f"`{name}` {expectation}, not {shown}" if expectation else f"`{name}` cannot be {shown}"
    )
    if ", not " in expectation:  # it names what is wrong inside of the value
        message = f"`{name}` {expectation}"
    notes = suggest_second(name, value) or suggest_value(value, located, expectation, variables)
    return Diagnostic("E103", message, located.position, notes=notes)


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """The model of a nested mapping: of a field, or of the values of a field."""
    for step in path:
        parts = [part for part in _annotations(model, step) if isinstance(part, type)]
        model = next((part for part in parts if issubclass(part, BaseModel)), model)
    return model


def _annotations(model: type[BaseModel], key: int | str) -> list[Any]:
    """The type of a field, and the types it is made of; none if there is no such field."""
    found: list[Any] = []
    for name, field in model.model_fields.items():
        if key in (field.alias or name, name):
            found.append(field.annotation)
    for annotation in found:
        found += [] if get_origin(annotation) is Literal else get_args(annotation)
    return found


_WHOLE_NUMBER = "must be a whole number"
_NUMBER = "must be a number"
_BOOLEAN = "must be true or false"
_TEXT = "must be text"
_LIST = "must be a list"
_MAPPING = "must be a mapping"
_EXPECTATIONS = {
    "bool_parsing": _BOOLEAN,
    "bool_type": _BOOLEAN,
    "dict_type": _MAPPING,
    "finite_number": "must be a finite number",
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "frozen_set_type": _LIST,
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": "must be a smaller number",
    "int_type": _WHOLE_NUMBER,
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": _LIST,
    "mapping_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "model_type": _MAPPING,
    "multiple_of": "must be a multiple of {multiple_of}",
    "none_required": "must be `~`",
    "set_type": _LIST,
    "string_pattern_mismatch": "must match the pattern `{pattern}`",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": _TEXT,
    "string_unicode": _TEXT,
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "tuple_type": _LIST,
}
"""pydantic's types of errors -> what the value must be."""


def _expectation(item: Any, model: type[BaseModel], path: Sequence[int | str]) -> str:
    """What a refused value must be, as a clause; empty if pydantic's type of error is unknown."""
    context = item.get("ctx", {})
    if item["type"] in ("value_error", "assertion_error"):
        return str(context["error"])  # raised by a validator of this project, or of a plugin
    if item["type"] in ("literal_error", "enum"):
        choices = _choices(model, path)
        words = [show(choice).replace('"', "'") for choice in choices]
        return f"must be {'one of ' * (len(words) > 1)}{listing(words, 'or')}" if words else ""
    return _EXPECTATIONS.get(item["type"], "").format(**context)


def _choices(model: type[BaseModel], path: Sequence[int | str]) -> list[Any]:
    """The values that a field's `Literal` allows."""
    annotations = _annotations(_model_at(model, path[:-1]), path[-1]) if path else []
    literals = [item for item in annotations if get_origin(item) is Literal]
    return [choice for literal in literals for choice in get_args(literal)]
