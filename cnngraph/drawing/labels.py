"""The class of an op in drawings, its short name, and its arguments in a few characters."""

from __future__ import annotations

from typing import Any

from cnngraph.errors import show
from cnngraph.graph import Graph, Node
from cnngraph.ops.op import Op
from cnngraph.shape import TensorShape

CLASSES = {
    "input": "input",
    "conv": "convolution",
    "linear": "fully connected",
    "pool": "pooling, resampling",
    "norm": "normalization",
    "activation": "activation",
    "shape": "reshaping",
    "merge": "join",
    "other": "other",
    "block": "block, opened below",
}
"""The classes of boxes, and their names in the legend."""

JOINS = {"concat": "concatenation", "add": "sum", "multiply": "product"}
"""The kinds of joins, and their names in the legend."""

_CLASS_OF_MODULE = {
    "adaptive_pool": "pool",
    "channels": "shape",
    "regularization": "activation",
    "resize": "pool",
}
_SHORT = {"batch_norm": "BN", "layer_norm": "LN", "group_norm": "GN", "instance_norm": "IN"}
_UNSAID = {
    "bias",
    "eps",
    "momentum",
    "affine",
    "ceil_mode",
    "count_include_pad",
    "padding_mode",
    "like",
}
_CHANNELS = {"out_channels", "out_features"}
_WINDOW = {"kernel_size", "stride", "padding", "dilation", "groups"}

Slots = tuple[tuple[str, str], ...]
"""Arguments by name, in the order they are shown: `(("kernel", "3×3"), ("channels", "64"))`."""


def class_of(op: Op) -> str:
    """A key of `CLASSES`."""
    module = module_of(op)
    name = _CLASS_OF_MODULE.get(module, module)
    return name if name in CLASSES else "other"


def module_of(op: Op) -> str:
    """The name of the module of `cnngraph.ops` that defines the op; "" for an op of a plugin."""
    package, _, module = type(op).__module__.rpartition(".")
    return module if package == "cnngraph.ops" else ""


def short_kind(op: Op) -> str:
    """The op's kind, abbreviated for norms: `BN`."""
    return _SHORT.get(op.kind, op.kind)


def slots(graph: Graph, node: Node) -> Slots:
    """The arguments that tell one layer from another of its kind.

    `/2` is a stride, `up 2` the stride of a transposed convolution.
    """
    op = node.op
    fields = {name: getattr(op, name) for name in type(op).model_fields}
    found: list[tuple[str, str]] = []
    if (kernel := fields.get("kernel_size")) is not None:
        found.append(("kernel", _size(kernel)))
    if (channels := fields.get("out_channels", fields.get("out_features"))) is not None:
        found.append(("channels", show(channels)))
    said = _CHANNELS
    if "kernel_size" in fields:
        said = _CHANNELS | _WINDOW
        found += _window(op, fields, graph.input_shapes(node))
    found += [
        (name, f"{name}={show(_pair(fields[name]))}")
        for name in sorted(op.model_fields_set - _UNSAID - said)
    ]
    return tuple(found)


def _window(
    op: Op, fields: dict[str, Any], inputs: tuple[TensorShape, ...]
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    stride = fields.get("stride")
    stride = fields["kernel_size"] if stride is None else stride
    if not _is_one(stride):
        sign = "up " if "transpose" in op.kind else "/"
        found.append(("stride", f"{sign}{show(_pair(stride))}"))
    if (groups := fields.get("groups", 1)) != 1:
        each = bool(inputs) and groups == inputs[0].channels
        found.append(("groups", "depthwise" if each else f"{show(groups)} groups"))
    if not _is_one(fields.get("dilation", 1)):
        found.append(("dilation", f"dilation {show(_pair(fields['dilation']))}"))
    return found


def _pair(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.3g}")
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value  # pyright: ignore


def _is_one(value: Any) -> bool:
    return set(value) == {1} if isinstance(value, tuple) else value == 1  # pyright: ignore


def _size(value: Any) -> str:
    """`3` and `(3, 3)` -> `3×3`."""
    sizes = value if isinstance(value, tuple) else (value, value)  # pyright: ignore
    return "×".join(map(str, sizes))


def shape_text(shape: TensorShape) -> str:
    """`64×56×56`."""
    return "×".join(map(str, shape))


def resolution(shape: TensorShape) -> str:
    """`56×56`, or `vector` for features."""
    return "×".join(map(str, shape.spatial)) or "vector"
