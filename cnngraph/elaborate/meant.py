"""What an unknown kind is likely to mean: another case, torch's or Keras's word for it, a missing space."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cnngraph.errors import Notes, did_you_mean
from cnngraph.hints import hint
from cnngraph.ops import Op
from cnngraph.validation import argument_names
from cnngraph.yaml_source import Located

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
_LONGEST = 100
_PREFIX = re.compile(r"^(torch\.)?(nn|F|layers|keras\.layers)\.(functional\.)?")
_GLUED = re.compile(r"(?P<kind>\w+)(?P<colon>\s*:?)\s*(?P<rest>.*)", re.DOTALL)


def meant_kind(kind: str, known: Iterable[str]) -> Notes:
    """A `help` note for a kind that there is not, or none."""
    known = list(known)
    if len(kind) > _LONGEST:
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
