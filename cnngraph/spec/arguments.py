"""Checks a mapping of a spec against a pydantic model, and turns what pydantic finds into diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from cnngraph.errors import MAX_MISTAKES, Diagnostic, Position, closest, did_you_mean, listing, show
from cnngraph.spec.document import argument_names, written_fields
from cnngraph.spec.suggestions import value_hint
from cnngraph.spec.yaml import Located

Model = TypeVar("Model", bound=BaseModel)


_INFERRED = ("in_channels", "in_features", "num_features", "num_channels", "normalized_shape")
"""Arguments of torch's modules that the language infers."""


class InvalidError(Exception):
    """Validation failed; everything wrong has been reported already."""


def validate(
    model: type[Model],
    arguments: dict[str, Located],
    keys: dict[str, Position],
    *,
    what: str,
    position: Position,
    resolve: Callable[[Located], Any],
    report: Callable[[Diagnostic], None],
    equal: dict[Any, Any] | None = None,
) -> Model:
    """An instance of `model` from located `arguments`.

    `resolve` evaluates one argument and raises `InvalidError` after reporting what is wrong with it; fields marked
    `RAW` are not resolved. Equal instances are one where `equal` is given, which keeps them; a model with `RAW` fields
    has none. Raises `InvalidError` after reporting every mistake.
    """
    fields = written_fields(model)
    known = [*fields, "name"]
    values: dict[str, Any] = {}
    valid = True
    unknown = 0
    meant: set[str] = set()
    cut = any(isinstance(item.value, str) and item.value.startswith("(") for item in arguments.values())
    for key, argument in arguments.items():
        if key not in fields:
            valid = False
            unknown += 1
            if unknown > MAX_MISTAKES or (cut and argument.value is None and key.endswith(")")):
                continue  # the second half of `kernel_size: (3, 3)`, whose first is told of
            accepted = ", ".join(fields) or "nothing"
            close = closest(key, known)
            meant |= {close} if close else set()
            notes = (("help", f"did you mean `{close}`?"),) if close else (("note", f"{what} takes: {accepted}"),)
            if argument.value is None and (glued := key.partition(":"))[2]:
                meant.add(glued[0])
                notes = (("help", f"a space after the colon: `{glued[0]}: {glued[2]:.20}`"),)
            if key in _INFERRED:
                notes = (("help", "leave it out: it is inferred from the input"),)
            report(Diagnostic("E101", f"{what} takes no `{key}`", keys[key], notes=notes))
            continue
        try:
            values[key] = argument if fields[key] else resolve(argument)
        except InvalidError:
            valid = False
    same = (model, repr(values)) if equal is not None else None
    if valid and equal is not None and same in equal:
        return equal[same]
    try:
        instance = model.model_validate(values)
    except ValidationError as error:
        _explain(error, model, arguments, keys, meant, what, position, report)
        raise InvalidError from None
    if not valid:
        raise InvalidError
    if equal is not None:
        equal[same] = instance
    return instance


def valid_part(model: type[Model], located: Located, **defaults: Any) -> tuple[Located, Model | None]:
    """What holds of a mapping with mistakes, and an instance of that; None where a required key is not in it.

    A misspelt key stands for the one it is close to. `defaults` stand for keys that are missing. All `keys` stay.
    """
    fields = written_fields(model)
    kept: dict[str, Located] = {}
    values = dict(defaults)
    keys: dict[str, Position] = {}
    for written, item in located.value.items():
        close = written if written in fields else closest(written, fields)
        key = close if close is not None and (close == written or close not in located.value) else written
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


def _explain(
    error: ValidationError,
    model: type[BaseModel],
    arguments: dict[str, Located],
    keys: dict[str, Position],
    meant: set[str],
    what: str,
    position: Position,
    report: Callable[[Diagnostic], None],
) -> None:
    missing = []
    seen = set()
    for item in error.errors():
        location = item["loc"]
        first = location[0] if location else None
        if item["type"] == "missing" and len(location) == 1:
            if first not in arguments and first not in meant:
                missing.append(f"`{first}`")
        elif first in arguments and location not in seen:
            seen.add(location)
            report(_mistake(item, model, Located(arguments, position, keys)))
        elif first is None:
            report(Diagnostic("E103", f"{what} {_expectation(item)}", position))
    if missing:
        report(Diagnostic("E102", f"{what} needs {listing(missing)}", position))


def _mistake(item: Any, model: type[BaseModel], whole: Located) -> Diagnostic:
    """One mistake in the value of an argument, which may lie deep in it."""
    *outer, key = location = item["loc"]
    if item["type"] == "extra_forbidden":
        known = argument_names(_model_at(model, outer))
        where = f"`{'.'.join(map(str, outer))}`"
        notes = did_you_mean(str(key), known) or (("note", f"{where} takes: {', '.join(known)}"),)
        position = whole.follow(tuple(outer)).keys.get(key) or whole.at(location)
        return Diagnostic("E101", f"{where} takes no `{key}`", position, notes=notes)
    expectation, located = _expectation(item), whole.follow(location)
    message = f"`{'.'.join(map(str, location))}` {expectation}, not {_given(item['input'])}"
    return Diagnostic("E103", message, located.position, notes=value_hint(_plain(item["input"]), located, expectation))


def _model_at(model: type[BaseModel], location: Iterable[int | str]) -> type[BaseModel]:
    """The model of a mapping in a field of `model`, or in a mapping that is such a field."""
    for step in location:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        if step in fields:
            parts = [fields[str(step)].annotation, *get_args(fields[str(step)].annotation)]
            model = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), model)
    return model


_EXPECTATIONS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be one of {expected}",
}


def _expectation(item: Any) -> str:
    context = item.get("ctx", {})
    if item["type"] == "value_error":
        return str(context["error"])
    if item["type"] == "literal_error" and " " not in context["expected"]:
        return f"must be {context['expected']}"
    template = _EXPECTATIONS.get(item["type"])
    return template.format(**context) if template else item["msg"].lower()


def _plain(value: Any) -> Any:
    return value.plain() if isinstance(value, Located) else value


def _given(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, dict):
        return "a mapping"
    return show(value)
