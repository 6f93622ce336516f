"""Checks a mapping of a spec against a pydantic model, and turns what pydantic finds into diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cnngraph.errors import MAX_MISTAKES, Diagnostic, Position, did_you_mean, listing
from cnngraph.expressions import show
from cnngraph.spec import RAW
from cnngraph.yaml_source import Located

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
    fields = _fields(model)
    known = [*fields, "name"]
    values: dict[str, Any] = {}
    valid = True
    unknown = 0
    for key, argument in arguments.items():
        if key not in fields:
            valid = False
            unknown += 1
            if unknown > MAX_MISTAKES:
                continue
            accepted = ", ".join(fields) or "nothing"
            notes = did_you_mean(key, known) or (("note", f"{what} takes: {accepted}"),)
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
        _explain(error, arguments, what, position, report)
        raise InvalidError from None
    if not valid:
        raise InvalidError
    if equal is not None:
        equal[same] = instance
    return instance


@lru_cache(maxsize=1024)
def _fields(model: type[BaseModel]) -> dict[str, bool]:
    """The model's keys as users write them -> whether the field is raw."""
    return {
        field.alias or name: any(item is RAW for item in field.metadata) for name, field in model.model_fields.items()
    }


def _explain(
    error: ValidationError,
    arguments: dict[str, Located],
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
            if first not in arguments:
                missing.append(f"`{first}`")
        elif first in arguments and location not in seen:
            seen.add(location)
            message = f"`{'.'.join(map(str, location))}` {_expectation(item)}"
            given = item["input"]
            whole = item["type"] == "int_type" and isinstance(given, float) and given.is_integer()
            notes = (("help", "`//` divides whole numbers into a whole number"),) if whole else ()
            if item["type"] != "extra_forbidden":
                message += f", not {_given(given)}"
            report(Diagnostic("E103", message, arguments[str(first)].at(location[1:]), notes=notes))
        elif first is None:
            report(Diagnostic("E103", f"{what} {_expectation(item)}", position))
    if missing:
        report(Diagnostic("E102", f"{what} needs {listing(missing)}", position))


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
    "extra_forbidden": "is not known here",
}


def _expectation(item: Any) -> str:
    context = item.get("ctx", {})
    if item["type"] == "value_error":
        return str(context["error"])
    if item["type"] == "literal_error" and " " not in context["expected"]:
        return f"must be {context['expected']}"
    template = _EXPECTATIONS.get(item["type"])
    return template.format(**context) if template else item["msg"].lower()


def _given(value: Any) -> str:
    if isinstance(value, Located):
        value = value.plain()
    if isinstance(value, dict):
        return "a mapping"
    return show(value)
