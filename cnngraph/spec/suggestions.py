"""What a wrong value was likely meant to be: `None`, `(3, 3)`, `$width`, `Same`, `16.0`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cnngraph.errors import Notes, did_you_mean
from cnngraph.ops import Op
from cnngraph.spec.document import argument_names
from cnngraph.spec.expressions import is_expression
from cnngraph.spec.yaml import Located

_NAMED = re.compile(r"\$\(?\{?(\w+)\}?\)?|\{+\s*(\w[^{}]*?)\s*\}+")
_TUPLE = re.compile(r"\(\s*([-\w.]+(?:\s*,\s*[-\w.]+)*)\s*,?\s*\)?")
_MAX_LENGTH = 100
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")


def hint(value: Any) -> Notes:
    """A `help` note for a text or mapping in the spelling of another language, or none."""
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        empty = inner is None or (isinstance(inner, Located) and inner.value is None)
        return (("help", f'an expression is `${{...}}`: write "${{{key}}}"'),) if empty else ()
    if not isinstance(value, str) or len(value) > _MAX_LENGTH or is_expression(value):
        return ()
    if value in ("None", "none", "nil"):
        return (("help", "none is written `~`"),)
    if named := _NAMED.fullmatch(value.strip()):
        name = named[1] or named[2]
        return (("help", f'an expression is `${{...}}`: write "${{{name}}}"'),)
    if listed := _TUPLE.fullmatch(value.strip()):
        return (("help", f"a list is written in brackets: [{_both(listed[1])}]"),)
    return ()


def _both(items: str) -> str:
    """The items; with the first alone, which is what YAML leaves of `{kernel_size: (3, 3)}`, two of it."""
    return items if "," in items else f"{items}, {items}"


def value_hint(given: Any, located: Located, expectation: str) -> Notes:
    """A `help` note for a value that is not what was expected: `given`, as it is written at `located`."""
    if notes := _whole_number(given, located, expectation):
        return notes
    if located.value != given and isinstance(located.value, str):
        return ()  # the value of an expression: the spelling is not at fault
    if isinstance(given, str):
        words = re.findall(r"[`']([a-z][\w-]*)[`']", expectation)
        same = next((word for word in words if _folded(word) == _folded(given)), None)
        if same or words:
            return (("help", f"did you mean `{same}`?"),) if same else (did_you_mean(given, words) or hint(given))
        if _NUMBER.fullmatch(given) and "number" in expectation:
            return (("help", f"write {given}, without quotes"),)
        if given.lower() in ("yes", "on", "no", "off") and "true" in expectation:
            return (("help", f"write {'true' if given.lower() in ('yes', 'on') else 'false'}"),)
    return hint(given)


def _whole_number(given: Any, located: Located, expectation: str) -> Notes:
    if "whole number" not in expectation:
        return ()
    written = located.value
    if is_expression(written):
        items = given if isinstance(given, tuple) else (given,)
        divided = "/" in written.replace("//", "") and any(isinstance(item, float) for item in items)
        return (("help", "`//` divides whole numbers into a whole number"),) if divided else ()
    if isinstance(written, list):
        pairs = zip(given, written, strict=True) if isinstance(given, tuple) and len(given) == len(written) else ()
        return next(filter(None, (_whole_number(item, inner, expectation) for item, inner in pairs)), ())
    if isinstance(written, float) and written.is_integer():
        return (("help", f"write {int(written)}"),)
    return ()


def _folded(word: str) -> str:
    return re.sub(r"[_\-\s]", "", word).lower()


OTHER_WORDS = {
    "averagepooling2d": "avg_pool2d",
    "avgpool": "avg_pool2d",
    "batchnorm1d": "batch_norm",
    "batchnorm2d": "batch_norm",
    "batchnormalization": "batch_norm",
    "bn": "batch_norm",
    "cat": "concat",
    "concatenate": "concat",
    "conv": "conv2d",
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
    "conv2dtranspose": "conv_transpose2d",
    "zeropad2d": "pad",
    "zeropadding2d": "pad",
}
"""What others call an op, without case and underscores -> its kind here."""

_IN_OTHER_WORDS = {
    "denselayer": "write `linear: out_features`; `dense` joins each result with what came before, as DenseNet does",
    "depthwiseconv": "write a `conv2d` with `groups: ${in_channels}`",
    "depthwiseconv2d": "write a `conv2d` with `groups: ${in_channels}`",
    "conv1x1": "write a `conv2d` with `kernel_size: 1`",
    "conv3x3": "write a `conv2d` with `kernel_size: 3, padding: 1`",
    "separableconv2d": "write two: a `conv2d` with `groups: ${in_channels}`, and one with `kernel_size: 1`",
    "skip": "write a `residual` around the nodes, or `add` with the name of an earlier one",
    "reshape": "`flatten` makes features of a map",
    "view": "`flatten` makes features of a map",
    "else": "write two `when`, with opposite tests",
}
_PREFIX = re.compile(r"^(torch\.)?(nn|F|layers|keras\.layers)\.(functional\.)?")
_GLUED = re.compile(r"(?P<kind>\w+)(?P<colon>\s*:?)\s*(?P<rest>.*)", re.DOTALL)


def meant_kind(kind: str, known: Iterable[str]) -> Notes:
    """A `help` note for a kind that there is not, or none."""
    known = list(known)
    if len(kind) > _MAX_LENGTH:
        return ()
    if found := _missing_space(kind):
        return (("help", found),)
    if found := hint(kind):
        return found
    plain = _plain(kind)
    by_plain = {_plain(item): item for item in known}
    if kind == "Dense":  # Keras's
        plain = "denselayer"
    if plain in _IN_OTHER_WORDS:
        return (("help", _IN_OTHER_WORDS[plain]),)
    close = by_plain.get(plain) or (OTHER_WORDS.get(plain) if OTHER_WORDS.get(plain) in known else None)
    return (("help", f"did you mean `{close}`?"),) if close else did_you_mean(kind, known)


def _plain(kind: str) -> str:
    return re.sub(r"[_\-\s]", "", _PREFIX.sub("", kind)).lower()


def _missing_space(kind: str) -> str:
    """`-relu`, `max_pool2d:2`, `conv2d {...`: what is missing between a dash, a kind, a colon and its arguments."""
    if re.match(r"-\w", kind):
        return f"a space after the dash: `- {kind[1:]}`"
    glued = _GLUED.fullmatch(kind)
    if glued and glued["rest"] and glued["colon"].strip():
        return f"a space after the colon: `{glued['kind']}: {_short(glued['rest'])}`"
    if glued and glued["rest"].startswith("{") and not glued["rest"].startswith("{{"):
        return f"a colon and a space before the brace: `{glued['kind']}: {{...}}`"
    return ""


def _short(text: str) -> str:
    return "{...}" if text.startswith("{") else text[:20]


def call_by_name(kind: str, model: type[Any], bare: Located) -> tuple[str, Notes]:
    """What is wrong with one bare argument of an op that has no main one, and how its arguments are written."""
    names = argument_names(model)
    if not names:
        return f"`{kind}` takes no arguments", (("help", f"write `{kind}`"),)
    message = f"`{kind}` takes its arguments by name"
    wanted = [name for name, field in zip(names, model.model_fields.values(), strict=True) if field.is_required()]
    if not issubclass(model, Op):
        return message, (("note", f"`{kind}` takes: {', '.join(names)}"),)
    value = bare.value
    known = wanted and type(value) in (int, float, str) and len(str(value)) <= 20
    first = value if known else "..."
    wanted = wanted or names[:1]
    shown = ", ".join(f"{name}: {first if name == wanted[0] else '...'}" for name in wanted)
    return message, (("help", f"write `{kind}: {{{shown}}}`"),)
