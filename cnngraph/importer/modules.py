"""Modules that are one op."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from cnngraph.importer import layers
from cnngraph.importer.arrange import reshape
from cnngraph.importer.pointwise import log_softmax, softmax
from cnngraph.importer.rules import apply, sizes
from cnngraph.importer.steps import new_op
from cnngraph.importer.values import Recorder, Value
from cnngraph.nn import MaxUnpool2d, layer_norm2d, resize
from cnngraph.ops import OPS, Op
from cnngraph.ops.op import ShapePreserving

_PADS = {
    nn.ZeroPad2d: "constant",
    nn.ConstantPad2d: "constant",
    nn.ReflectionPad2d: "reflect",
    nn.ReplicationPad2d: "replicate",
    nn.CircularPad2d: "circular",
}
_NORMS = {
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.BatchNorm3d: "batch_norm",
    nn.InstanceNorm1d: "instance_norm",
    nn.InstanceNorm2d: "instance_norm",
    nn.InstanceNorm3d: "instance_norm",
    layer_norm2d.LayerNorm2d: "layer_norm",
}
_DROP_PATHS = ("DropPath", "StochasticDepth")
"""Modules of stochastic depth in timm, in emitted Python and in torchvision."""
_SAME = {"Conv2dSame": "conv2d", "MaxPool2dSame": "max_pool2d", "AvgPool2dSame": "avg_pool2d"}
"""Modules of timm that pad as TensorFlow does, and their ops."""
_RESPONSE_NORM = "GlobalResponseNorm"
_LIKE = {
    resize.UpsampleLike: "upsample",
    resize.CropLike: "crop",
    resize.PadLike: "pad",
    MaxUnpool2d: "max_unpool2d",
}
"""Modules of two inputs; the argument `like` of their ops names the second."""


@cache
def _classes() -> dict[type[nn.Module], type[Op]]:
    """The ops by the class of their module."""
    found: dict[type[nn.Module], type[Op]] = {}
    for op in OPS.values():
        if op.module_class is not None and not op.kind.startswith("global_avg"):
            package, _, name = op.module_class.rpartition(".")
            found[getattr(import_module(package), name)] = op
    return found


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one op."""
    kind = type(module)
    return (
        kind in _classes()
        or kind in _PADS
        or kind in _NORMS
        or kind in _LIKE
        or kind is nn.LayerNorm
        or (kind.__module__.startswith("timm.") and kind.__name__ in (*_SAME, _RESPONSE_NORM))
        or kind.__name__ in _DROP_PATHS
        or (kind.__module__.startswith("torch.nn") and not any(module.children()))
    )


def module_step(record: Recorder, module: Any, path: str, *inputs: Any) -> Any:
    """The op of a leaf module, and its value."""
    kind = type(module)
    input, *others = inputs
    if kind in (nn.Identity, nn.Sequential):  # an empty one
        return input
    if not all(isinstance(value, Value) for value in inputs):
        raise record.unsupported(f"a {kind.__name__} of a constant")
    if others:
        return _of_several(record, module, path, *inputs)
    if kind is nn.Linear:
        bias = module.bias is not None
        return layers.apply_linear(record, input, module.out_features, bias, path)
    if kind is nn.LayerNorm:
        shape, affine = module.normalized_shape, module.elementwise_affine
        bias = module.bias is not None or not affine
        return layers.apply_layer_norm(record, input, shape, module.eps, affine, bias, path)
    if kind in (nn.Flatten, nn.Unflatten):
        return reshape(record, input)
    if kind in (nn.Softmax, nn.LogSoftmax):
        return (softmax if kind is nn.Softmax else log_softmax)(record, input, module.dim)
    if kind.__name__ in _DROP_PATHS and kind not in _classes():
        p = getattr(module, "drop_prob", getattr(module, "p", 0.0))
        if getattr(module, "mode", "row") != "row" or not getattr(module, "scale_by_keep", True):
            raise record.unsupported(f"this {kind.__name__}")
        return apply(record, "drop_path", input, p=float(p or 0.0))
    if kind.__name__ == _RESPONSE_NORM and module.channel_dim % len(input.shape) == (
        input.channel_axis
    ):
        op = new_op("global_response_norm", eps=module.eps)
        normed = record.step(op, input.own, module=path, weighted=True)
        return replace(input, name=normed.name)
    weighted = bool(module.state_dict())
    op_class = _classes().get(kind)
    if weighted or op_class is None or not issubclass(op_class, ShapePreserving):
        input = record.plain(input)
    return _step(record, module, path, input, weighted)


def _step(record: Recorder, module: Any, path: str, input: Value, weighted: bool) -> Value:
    kind = type(module)
    if kind in _NORMS:
        op = op_of(OPS[_NORMS[kind]], module)
    elif kind in _PADS:
        sides = module.padding if isinstance(module.padding, tuple) else (module.padding,) * 4
        if not any(sides):
            return input
        value, mode = float(getattr(module, "value", 0.0)), _PADS[kind]
        op = new_op("pad", padding=sides, mode=mode, value=value)
    elif kind.__name__ in _SAME:
        op = op_of(OPS[_SAME[kind.__name__]], module, padding="same")
    elif kind.__name__.startswith("AdaptiveAvgPool"):
        return layers.adaptive_avg_pool(record, input, module.output_size)
    elif kind.__name__.startswith("AdaptiveMaxPool"):
        return layers.adaptive_max_pool(record, input, module.output_size)
    elif kind in _classes():
        op = op_of(_classes()[kind], module)
    else:
        raise record.unsupported(f"the module {kind.__name__} (`{path}`)")
    return record.step(op, input, module=path, weighted=weighted)


def _of_several(record: Recorder, module: Any, path: str, *inputs: Value) -> Value:
    """The op of a module whose second input its argument `like` names."""
    kind = type(module)
    if kind not in _LIKE or len(inputs) != 2:
        raise record.unsupported(f"a {kind.__name__} with several inputs")
    op = op_of(OPS[_LIKE[kind]], module, like=inputs[1].name)
    return record.step(op, *inputs, module=path)


def op_of(op: type[Op], module: Any, **given: Any) -> Op:
    """The op of a module: its fields are the module's attributes of these names."""
    for name, field in op.model_fields.items():
        if name in given or name == "init" or not hasattr(module, name):
            continue
        value = getattr(module, name)
        if name == "bias":
            value = value is not None or not getattr(module, "elementwise_affine", True)
        if value is None and not field.is_required():
            continue
        if name in ("stride", "padding", "dilation", "kernel_size") and "pool" in op.kind:
            value = sizes(value, int(op.kind[-2]))
        given[name] = tuple(value) if isinstance(value, list) else value
    if op.kind == "normalize":
        mean, std = module._constants
        given = {"mean": tuple(mean), "std": tuple(std)}
    return op(**given)
