"""Suggestions for arguments that are unknown, or given without their name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from cnngraph.errors import Notes, closest, is_list, show
from cnngraph.ops import Op
from cnngraph.spec.document import Dense, Document, argument_names
from cnngraph.spec.suggestions.syntax import folded
from cnngraph.spec.yaml import Located

_ALIASES: dict[str, tuple[str, ...]] = {
    "alpha": ("negative_slope",),
    "base": ("extends",),
    "condition": ("test",),
    "do": ("body",),
    "droprate": ("p",),
    "epsilon": ("eps",),
    "factor": ("scale_factor",),
    "features": ("out_features", "out_channels"),
    "filters": ("out_channels",),
    "group": ("groups", "num_groups"),
    "if": ("test",),
    "inputs": ("with", "input"),
    "inputshape": ("input",),
    "inputsize": ("input",),
    "join": ("merge",),
    "k": ("kernel_size",),
    "ksize": ("kernel_size",),
    "layers": ("body", "graph"),
    "list": ("over",),
    "mode": ("merge",),
    "model": ("graph",),
    "n": ("times", "layers"),
    "network": ("graph",),
    "nodes": ("body", "graph"),
    "num": ("times", "layers"),
    "op": ("merge",),
    "out": ("out_channels", "out_features"),
    "outch": ("out_channels",),
    "outdim": ("out_channels", "out_features"),
    "p": ("padding",),
    "pad": ("padding",),
    "planes": ("out_channels",),
    "poolsize": ("kernel_size",),
    "prob": ("p",),
    "probability": ("p",),
    "rate": ("p",),
    "s": ("stride",),
    "size": ("kernel_size", "output_size"),
    "then": ("body",),
    "units": ("out_features", "out_channels"),
    "usebias": ("bias",),
    "var": ("as",),
    "variables": ("params",),
    "windowsize": ("kernel_size",),
    "withbias": ("bias",),
}
"""Arguments of other libraries, in lower case and without underscores -> those here."""

_INFERRED = "remove it: it is inferred from the input"
_ONE_LAYOUT = "remove it: maps are channels x height x width"
_NOT_HERE: dict[str, str] = {
    **dict.fromkeys(
        ["in_channels", "in_features", "num_features", "num_channels", "normalized_shape"],
        _INFERRED,
    ),
    **dict.fromkeys(["act", "activation", "nonlinearity"], "write it as the next node: `- relu`"),
    **dict.fromkeys(["norm", "norm_layer"], "write it as the next node: `- batch_norm`"),
    **dict.fromkeys(["data_format", "memory_format"], _ONE_LAYOUT),
    **dict.fromkeys(["dim", "axis"], "remove it: it always applies to the channels or features"),
    **dict.fromkeys(["device", "dtype"], "remove it: move the compiled network with `.to(...)`"),
    "else": "write a second `when` with the opposite test",
    "inplace": "remove it: the compiler decides what is computed in place",
}
"""Arguments that no node has -> what to do instead."""

_DENSE_LAYER = "a fully connected layer is `linear: {}`; `dense` is the dense block of DenseNet"
_UNITS = ("units", "out_features", "out", "features", "size", "activation")


class Suggestion(NamedTuple):
    """How to mend an unknown argument, and the arguments it stands for, which are not missing."""

    notes: Notes
    stands_for: Collection[str] = ()


def suggest_argument(
    model: type[BaseModel], what: str, key: str, argument: Located, fields: Sequence[str]
) -> Suggestion:
    """A note for an argument that `model`, called `what` in messages, does not have.

    Args:
        argument: its value.
        fields: the arguments that `model` has.
    """
    if model is Dense and key in _UNITS:
        units = argument.value if isinstance(argument.value, int) else 10
        return Suggestion((("help", _DENSE_LAYER.format(units)),), fields)
    name, _, rest = key.partition(":")
    if argument.value is None and rest:
        return Suggestion((("help", f"put a space after the colon: `{name}: {rest:.20}`"),), [name])
    if key in _NOT_HERE and model is not Document:
        return Suggestion((("help", _NOT_HERE[key]),))
    if close := similar_field(key, [*fields, "name"]):
        return Suggestion((("help", f"did you mean `{close}`?"),), [close])
    return Suggestion((("note", f"{what} accepts: {', '.join(fields) or 'nothing'}"),))


def similar_field(key: str, fields: Collection[str]) -> str | None:
    """The field that an unknown key probably stands for, or None."""
    others = _ALIASES.get(folded(key), ())
    return next((other for other in others if other in fields), None) or closest(key, fields)


def suggest_names(kind: str, model: type[BaseModel], bare: Located) -> tuple[str, Notes]:
    """The message and notes for a bare argument of a kind that has no main one."""
    names = argument_names(model)
    if not names:
        return f"`{kind}` takes no arguments", (("help", f"write `{kind}`"),)
    message = f"`{kind}` takes its arguments by name"
    if model is Dense and isinstance(bare.value, int):
        return message, (("help", _DENSE_LAYER.format(bare.value)),)
    if not issubclass(model, Op):
        return message, (("note", f"`{kind}` accepts: {', '.join(names)}"),)
    fields = zip(names, model.model_fields.values(), strict=True)
    required = [name for name, field in fields if field.is_required()]
    if not required and model.channels_argument and isinstance(bare.value, int):
        return message, (("help", f"write `{kind}`: the number of channels is inferred"),)
    values = _positional(model, names, bare)
    if values is None:
        shown = ", ".join(f"{name}: ..." for name in required or names[:1])
        short = type(bare.value) in (int, float, str) and len(str(bare.value)) <= 20
        shown = shown.replace("...", str(bare.value), 1) if required and short else shown
    else:
        shown = ", ".join(f"{name}: {show(value)}" for name, value in values.items())
    return message, (("help", f"write `{kind}: {{{shown}}}`"),)


def suggest_second(field: str, value: Any) -> Notes:
    """A `help` note for `linear: [3072, 10]`, whose first number is inferred, or none."""
    sizes = field in ("out_features", "out_channels") and is_list(value) and len(value) == 2
    if not sizes or not all(type(item) is int for item in value):
        return ()
    return (("help", f"write {value[1]}: the size of the input is inferred"),)


def _positional(model: type[Op], names: Sequence[str], bare: Located) -> dict[str, Any] | None:
    """`conv2d: [3, 64, 7]` by name: torch's order, which begins with the input's channels."""
    values = bare.plain()
    if not is_list(values) or not model.channels_argument:
        return None
    if len(values) < 3 or not all(type(value) is int for value in values):
        return None
    return dict(zip(names, values[1:], strict=False))
