"""`init:` of a spec: how the weights of each op are initialised. Torch's rules, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from cnngraph.errors import closest, listing, show
from cnngraph.ops import OPS, find_op
from cnngraph.ops.fields import is_number
from cnngraph.spec.suggestions.kinds import same_kind

SCHEMES: dict[str, dict[str, float | str]] = {
    "constant": {"val": 0.0},
    "kaiming_normal": {"a": 0.0, "mode": "fan_in", "nonlinearity": "leaky_relu"},
    "kaiming_uniform": {"a": 0.0, "mode": "fan_in", "nonlinearity": "leaky_relu"},
    "normal": {"mean": 0.0, "std": 1.0},
    "ones": {},
    "orthogonal": {"gain": 1.0},
    "truncated_normal": {"mean": 0.0, "std": 1.0, "a": -2.0, "b": 2.0},
    "uniform": {"a": 0.0, "b": 1.0},
    "xavier_normal": {"gain": 1.0},
    "xavier_uniform": {"gain": 1.0},
    "zeros": {},
}
"""Functions of `torch.nn.init` -> their arguments and defaults."""
ZERO_LAST_NORM = "zero_last_norm"
_WORDS = {
    "mode": ("fan_in", "fan_out"),
    "nonlinearity": ("leaky_relu", "relu", "linear", "sigmoid", "tanh", "selu"),
}


class Scheme(NamedTuple):
    """A function of `torch.nn.init` and its arguments."""

    name: str
    arguments: dict[str, Any]


Schemes = dict[str, Scheme]
"""Parameter (`weight`, `bias`) -> scheme."""
Rules = dict[str, Schemes]
"""Op -> schemes of its parameters. `zero_last_norm` is an entry without schemes."""


def rules(value: Any) -> Rules:
    """The rules that `init` states. Raises `ValueError` with a clause on what is wrong."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping from ops to schemes")
    found: Rules = {}
    for kind, scheme in cast("Mapping[str, Any]", value).items():
        if kind == ZERO_LAST_NORM:
            if not isinstance(scheme, bool):
                raise ValueError(f"must state `{kind}` as true or false, not {show(scheme)}")
            if scheme:
                found[kind] = {}
            continue
        if find_op(kind) is None:
            kinds = [*OPS, ZERO_LAST_NORM]
            near = same_kind(kind, kinds) or closest(kind, kinds)
            hint = f" (did you mean `{near}`?)" if near else ""
            raise ValueError(f"must name ops, not `{kind}`{hint}")
        found[kind] = schemes(kind, scheme)
    return found


SCHEMES_SCHEMA = {"$ref": "#/$defs/schemes"}


def rules_schema() -> dict[str, Any]:
    """The JSON Schema of what `rules` accepts, apart from the names of ops.

    It refers to that of `schemes_schema`.
    """
    return {
        "type": "object",
        "properties": {ZERO_LAST_NORM: {"type": "boolean"}},
        "additionalProperties": SCHEMES_SCHEMA,
    }


def schemes_schema() -> dict[str, Any]:
    """The JSON Schema of what `schemes` accepts."""
    calls: dict[str, Any] = {}
    for name, arguments in SCHEMES.items():
        kinds: dict[str, dict[str, Any]] = {
            key: {"enum": [*_WORDS[key]]} if key in _WORDS else {"type": "number"}
            for key in arguments
        }
        if "std" in kinds:
            kinds["std"] = {"type": "number", "minimum": 0}
        calls[name] = {"type": "object", "properties": kinds, "additionalProperties": False}
    scheme: dict[str, Any] = {
        "anyOf": [
            {"enum": [*SCHEMES]},
            {
                "type": "object",
                "properties": calls,
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ]
    }
    parts = {"weight": scheme, "bias": scheme}
    by_parameter = {"type": "object", "properties": parts, "additionalProperties": False}
    return {"anyOf": [*scheme["anyOf"], by_parameter]}


def schemes(kind: str, value: Any) -> Schemes:
    """What an op's `init` states. Raises `ValueError` with a clause on what is wrong."""
    parts: Any = value
    if not (isinstance(parts, Mapping) and {*parts} <= {"weight", "bias"}):  # pyright: ignore
        parts = {"weight": value}
    return {name: _scheme(kind, item) for name, item in parts.items()}


def _scheme(kind: str, value: Any) -> Scheme:
    name, given = value, {}
    if isinstance(value, Mapping) and len(value) == 1:  # pyright: ignore[reportUnknownArgumentType]
        ((name, given),) = cast("Mapping[str, Any]", value).items()
    if not isinstance(name, str) or name not in SCHEMES:
        near = closest(name, SCHEMES) if isinstance(name, str) else None
        shown = f"`{name}`" if isinstance(name, str) else show(name)
        hint = f"did you mean `{near}`?" if near else f"there are {', '.join(SCHEMES)}"
        raise ValueError(f"must give `{kind}` a scheme, not {shown} ({hint})")
    known = SCHEMES[name]
    if not isinstance(given, Mapping):
        raise ValueError(f"must give the arguments of `{name}` by name, not {show(given)}")
    for key, item in given.items():
        if key not in known:
            accepted = listing([f"`{word}`" for word in known]) or "no arguments"
            raise ValueError(f"must give `{name}` {accepted}, not `{key}`")
        if key in _WORDS and item not in _WORDS[key]:
            words = listing([f"`{word}`" for word in _WORDS[key]], "or")
            raise ValueError(f"must give `{key}` of `{name}` one of {words}, not {show(item)}")
        if key not in _WORDS and (not is_number(item) or (key == "std" and item < 0)):
            raise ValueError(f"must give `{key}` of `{name}` as a number, not {show(item)}")
    return Scheme(name, {**known, **given})
