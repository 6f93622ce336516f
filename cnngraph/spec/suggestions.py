"""Suggestions for a wrong kind or value: the spelling of this language for that of another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

from pydantic import BaseModel

from cnngraph.errors import Notes, did_you_mean, is_list
from cnngraph.ops import Op
from cnngraph.spec.document import argument_names
from cnngraph.spec.expressions import is_expression
from cnngraph.spec.yaml import Located

_MAX_LENGTH = 100
_EXPRESSION = re.compile(r"\$\(?\{?(\w+)\}?\)?|\{+\s*(\w[^{}]*?)\s*\}+")
_TUPLE = re.compile(r"\(\s*([-\w.]+(?:\s*,\s*[-\w.]+)*)\s*,?\s*\)?")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_TORCH_PREFIX = re.compile(r"^(torch\.)?(nn|F|layers|keras\.layers)\.(functional\.)?")
_GLUED_KIND = re.compile(r"(?P<kind>\w+)(?P<colon>\s*:?)\s*(?P<rest>.*)", re.DOTALL)

KINDS = {
    "averagepooling2d": "avg_pool2d",
    "avgpool": "avg_pool2d",
    "batchnorm1d": "batch_norm",
    "batchnorm2d": "batch_norm",
    "batchnormalization": "batch_norm",
    "bn": "batch_norm",
    "cat": "concat",
    "concatenate": "concat",
    "conv": "conv2d",
    "conv2dtranspose": "conv_transpose2d",
    "convolution": "conv2d",
    "convtranspose": "conv_transpose2d",
    "deconv": "conv_transpose2d",
    "deconv2d": "conv_transpose2d",
    "fc": "linear",
    "fullyconnected": "linear",
    "gap": "global_avg_pool2d",
    "globalaveragepooling2d": "global_avg_pool2d",
    "globalavgpool": "global_avg_pool2d",
    "globalmaxpooling2d": "global_max_pool2d",
    "gn": "group_norm",
    "hswish": "hardswish",
    "if": "when",
    "instancenorm2d": "instance_norm",
    "layernormalization": "layer_norm",
    "ln": "layer_norm",
    "loop": "repeat",
    "lrn": "local_response_norm",
    "maxpool": "max_pool2d",
    "maxpooling2d": "max_pool2d",
    "mul": "multiply",
    "stochasticdepth": "drop_path",
    "swish": "silu",
    "transposeconv": "conv_transpose2d",
    "transposeconv2d": "conv_transpose2d",
    "zeropad2d": "pad",
    "zeropadding2d": "pad",
}
"""The names of other libraries, in lower case and without underscores -> the kind here."""

_PATTERNS = {
    "conv1x1": "write a `conv2d` with `kernel_size: 1`",
    "conv3x3": "write a `conv2d` with `kernel_size: 3, padding: 1`",
    "denselayer": "write `linear: out_features`; `dense` is the dense block of DenseNet",
    "depthwiseconv": "write a `conv2d` with `groups: ${in_channels}`",
    "depthwiseconv2d": "write a `conv2d` with `groups: ${in_channels}`",
    "else": "write a second `when` with the opposite test",
    "reshape": "`flatten` turns a map into features",
    "separableconv2d": "write two `conv2d`: `groups: ${in_channels}`, then `kernel_size: 1`",
    "skip": "write a `residual` around the nodes, or `add` with the name of an earlier node",
    "view": "`flatten` turns a map into features",
}
"""Other names, likewise -> how to write the same here, where it is no single kind."""


def suggest_kind(kind: str, known: Iterable[str]) -> Notes:
    """A `help` note for an unknown kind, or none. `known` are the kinds that are valid."""
    known = list(known)
    if len(kind) > _MAX_LENGTH:
        return ()
    if found := _missing_space(kind):
        return (("help", found),)
    if found := _suggest_syntax(kind):
        return found
    folded = "denselayer" if kind == "Dense" else _folded(_TORCH_PREFIX.sub("", kind))  # Keras's
    if folded in _PATTERNS:
        return (("help", _PATTERNS[folded]),)
    close = {_folded(item): item for item in known}.get(folded) or KINDS.get(folded)
    return _did_you_mean(close) if close in known else did_you_mean(kind, known)


def suggest_value(value: Any, located: Located, expectation: str) -> Notes:
    """A `help` note for a wrong value, or none.

    Args:
        value: the value, its expressions evaluated.
        located: the same as written.
        expectation: the message that says what it must be.
    """
    if notes := _suggest_whole_number(value, located, expectation):
        return notes
    if located.value != value and isinstance(located.value, str):
        return ()  # the result of an expression, whose spelling is correct
    if isinstance(value, str):
        words = re.findall(r"[`']([a-z][\w-]*)[`']", expectation)
        same = next((word for word in words if _folded(word) == _folded(value)), None)
        if words:
            return _did_you_mean(same) or did_you_mean(value, words) or _suggest_syntax(value)
        if _NUMBER.fullmatch(value) and "number" in expectation:
            return (("help", f"write {value} without quotes"),)
        if value.lower() in _BOOLEANS and "true" in expectation:
            return (("help", f"write {_BOOLEANS[value.lower()]}"),)
    return _suggest_syntax(value)


def suggest_arguments(kind: str, model: type[BaseModel], bare: Located) -> tuple[str, Notes]:
    """The message and notes for a bare argument of a kind that has no main one."""
    names = argument_names(model)
    if not names:
        return f"`{kind}` takes no arguments", (("help", f"write `{kind}`"),)
    message = f"`{kind}` takes its arguments by name"
    if not issubclass(model, Op):
        return message, (("note", f"`{kind}` accepts: {', '.join(names)}"),)
    fields = zip(names, model.model_fields.values(), strict=True)
    required = [name for name, field in fields if field.is_required()]
    short = type(bare.value) in (int, float, str) and len(str(bare.value)) <= 20
    first = bare.value if required and short else "..."
    shown = ": ..., ".join(required or names[:1]) + ": ..."
    shown = shown.replace("...", str(first), 1)
    return message, (("help", f"write `{kind}: {{{shown}}}`"),)


def _suggest_syntax(value: Any) -> Notes:
    """A `help` note for a text or mapping in the syntax of another language, or none."""
    if isinstance(value, dict):
        entries = cast(dict[str, Any], value)
        if len(entries) != 1:
            return ()
        ((key, inner),) = entries.items()
        empty = inner is None or (isinstance(inner, Located) and inner.value is None)
        return _quoted_expression(key) if empty else ()
    if not isinstance(value, str) or len(value) > _MAX_LENGTH or is_expression(value):
        return ()
    if value in ("None", "none", "nil"):
        return (("help", "write none as `~`"),)
    if found := _EXPRESSION.fullmatch(value.strip()):
        return _quoted_expression(found[1] or found[2])
    if found := _TUPLE.fullmatch(value.strip()):
        # YAML splits `{kernel_size: (3, 3)}` at the comma, which leaves `(3`
        items = found[1] if "," in found[1] else f"{found[1]}, {found[1]}"
        return (("help", f"write a list in brackets: [{items}]"),)
    return ()


def _quoted_expression(text: str) -> Notes:
    return (("help", f'expressions are written `${{...}}`: "${{{text}}}"'),)


def _suggest_whole_number(value: Any, located: Located, expectation: str) -> Notes:
    if "whole number" not in expectation:
        return ()
    written = located.value
    if is_expression(written):
        items: tuple[Any, ...] = value if is_list(value) else (value,)
        divided = "/" in written.replace("//", "") and any(type(item) is float for item in items)
        return (("help", "use `//` to divide into a whole number"),) if divided else ()
    if isinstance(written, list) and is_list(value) and len(value) == len(written):
        pairs = zip(value, written, strict=True)
        found = (_suggest_whole_number(item, inner, expectation) for item, inner in pairs)
        return next(filter(None, found), ())
    if isinstance(written, float) and written.is_integer():
        return (("help", f"write {int(written)}"),)
    return ()


def _missing_space(kind: str) -> str:
    """What is missing in `-relu`, `max_pool2d:2` or `conv2d {...`, or an empty text."""
    if re.match(r"-\w", kind):
        return f"put a space after the dash: `- {kind[1:]}`"
    found = _GLUED_KIND.fullmatch(kind)
    if found and found["rest"] and found["colon"].strip():
        rest = "{...}" if found["rest"].startswith("{") else found["rest"][:20]
        return f"put a space after the colon: `{found['kind']}: {rest}`"
    if found and found["rest"].startswith("{") and not found["rest"].startswith("{{"):
        return f"put a colon and a space before the brace: `{found['kind']}: {{...}}`"
    return ""


def _did_you_mean(word: str | None) -> Notes:
    return (("help", f"did you mean `{word}`?"),) if word else ()


def _folded(word: str) -> str:
    return re.sub(r"[_\-\s]", "", word).lower()
