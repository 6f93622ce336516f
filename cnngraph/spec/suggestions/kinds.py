"""Suggestions for an unknown kind of node."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cnngraph.errors import Notes, did_you_mean
from cnngraph.spec.suggestions.syntax import MAX_LENGTH, folded, suggest_syntax

_TORCH_PREFIX = re.compile(r"^(torch\.)?(nn|F|layers|keras\.layers)\.(functional\.)?")
_DIMENSIONS = re.compile(r"(?P<base>\w+)[13]d")
_GLUED_KIND = re.compile(r"(?P<kind>\w+)(?P<colon>\s*:?)\s*(?P<rest>.*)", re.DOTALL)

KINDS = {
    "averagepooling2d": "avg_pool2d",
    "avgpool": "avg_pool2d",
    "batchnorm1d": "batch_norm",
    "batchnorm3d": "batch_norm",
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
    "act": "write the activation itself, such as `relu`",
    "activation": "write the activation itself, such as `relu`",
    "conv1x1": "write a `conv2d` with `kernel_size: 1`",
    "conv3x3": "write a `conv2d` with `kernel_size: 3, padding: 1`",
    "convbn": "write `conv2d` and `batch_norm`, or a block of both",
    "convbnrelu": "write `conv2d`, `batch_norm` and `relu`, or a block of the three",
    "convbnact": "write `conv2d`, `batch_norm` and an activation, or a block of the three",
    "denselayer": "write `linear: out_features`; `dense` is the dense block of DenseNet",
    "depthwiseconv": "write a `conv2d` with `groups: ${in_channels}`",
    "depthwiseconv2d": "write a `conv2d` with `groups: ${in_channels}`",
    "elif": "write a second `when`, whose test excludes the first",
    "else": "write a second `when` with the opposite test",
    "for": "write `repeat: {over: [...], as: item, body: [...]}`",
    "input": "the input's shape is written at the top of the spec: `input: [3, 224, 224]`",
    "inputlayer": "the input's shape is written at the top of the spec: `input: [3, 224, 224]`",
    "norm": "write the normalization itself, such as `batch_norm`",
    "normalization": "write the normalization itself, such as `batch_norm`",
    "pool": "write `max_pool2d` or `avg_pool2d`",
    "pooling": "write `max_pool2d` or `avg_pool2d`",
    "reshape": "`flatten` makes features of a map, and `unflatten` a map of features",
    "separableconv2d": "write two `conv2d`: `groups: ${in_channels}`, then `kernel_size: 1`",
    "skip": "write a `residual` around the nodes, or `add` with the name of an earlier node",
    "view": "`flatten` makes features of a map, and `unflatten` a map of features",
    **dict.fromkeys(
        ["se", "selayer", "semodule", "squeezeexcitation", "squeezeexcite"],
        "write squeeze-and-excitation as a `parallel` with `merge: multiply`: a branch `identity`, "
        "and one with `global_avg_pool2d` and two 1x1 `conv2d`",
    ),
}
"""Other names, likewise -> how to write the same here, where it is no single kind."""


def suggest_kind(kind: str, known: Iterable[str]) -> Notes:
    """A `help` note for an unknown kind, or none. `known` are the kinds that are valid."""
    known = list(known)
    if len(kind) > MAX_LENGTH:
        return ()
    if found := _missing_space(kind):
        return (("help", found),)
    if found := suggest_syntax(kind):
        return found
    if close := same_kind(kind, known):
        return (("help", f"did you mean `{close}`?"),)
    plain = _plain(kind)
    if plain in _PATTERNS:
        return (("help", _PATTERNS[plain]),)
    if (dimensions := _DIMENSIONS.fullmatch(plain)) and f"{dimensions['base']}2d" in map(
        folded, known
    ):
        return (("help", f"values are 2-D maps or flat features; there is no `{kind}`"),)
    return did_you_mean(kind, known)


def same_kind(kind: str, known: Sequence[str]) -> str | None:
    """The kind among `known` that another library calls `kind`, or None."""
    plain = _plain(kind)
    close = {folded(item): item for item in known}.get(plain) or KINDS.get(plain)
    return close if close in known else None


def _plain(kind: str) -> str:
    return "denselayer" if kind == "Dense" else folded(_TORCH_PREFIX.sub("", kind))  # Keras's


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
