"""Activations, dropouts and arithmetic of tensors, as ops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch.nn import functional as F

from cnngraph.importer.rules import RULES, apply, rule
from cnngraph.importer.steps import new_op
from cnngraph.importer.values import Recorder, Value, Weight
from cnngraph.ops import OPS
from cnngraph.ops.merge import Add, Multiply


def _elementwise(kind: str, *targets: Any, **fields: str) -> None:
    """The rule of a function of one value; `fields` are the op's fields by argument."""
    op = OPS[kind]

    def apply_op(record: Recorder, input: Any, *args: Any, **kwargs: Any) -> Value:
        given = dict(zip(fields, args, strict=False)) | kwargs
        known = {field: given[name] for name, field in fields.items() if field and name in given}
        return record.step(op(**known), value_of(record, input, kind))

    RULES.update(dict.fromkeys(targets, apply_op))


_elementwise("relu", F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_", inplace="")
_elementwise("leaky_relu", F.leaky_relu, negative_slope="negative_slope", inplace="")
_elementwise("elu", F.elu, alpha="alpha", inplace="")
_elementwise("celu", F.celu, alpha="alpha", inplace="")
_elementwise("gelu", F.gelu, approximate="approximate")
_elementwise("silu", F.silu, inplace="")
_elementwise("mish", F.mish, inplace="")
_elementwise("sigmoid", torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_")
_elementwise("tanh", torch.tanh, F.tanh, "tanh", "tanh_")
_elementwise("softplus", F.softplus, beta="beta", threshold="threshold")
_elementwise("hardswish", F.hardswish, inplace="")
_elementwise("hardsigmoid", F.hardsigmoid, inplace="")
_elementwise("selu", F.selu, inplace="")
_elementwise("dropout", F.dropout, p="p", training="", inplace="")
_elementwise("dropout1d", F.dropout1d, p="p", training="", inplace="")
_elementwise("dropout2d", F.dropout2d, p="p", training="", inplace="")
_elementwise("dropout3d", F.dropout3d, p="p", training="", inplace="")
_elementwise("alpha_dropout", F.alpha_dropout, p="p", training="", inplace="")


@dataclass(frozen=True)
class _Shifted:
    """`x + 3`, and when `clamped`, `relu6(x + 3)`, which is six times the hard sigmoid of x."""

    value: Value
    clamped: bool = False


def value_of(record: Recorder, input: Any, what: str) -> Value:
    """The argument as a value of the network."""
    if isinstance(input, _Shifted) and input.clamped:
        return apply(record, "scale", apply(record, "hardsigmoid", input.value), factor=6.0)
    if isinstance(input, _Shifted):
        raise record.unsupported("adding a constant")
    if not isinstance(input, Value):
        raise record.unsupported(f"`{what}` of a constant")
    return input


@rule(F.relu6, F.hardtanh, "relu6")
def hardtanh(
    record: Recorder, input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Any:
    if record.node.target is F.relu6:
        min_val, max_val = 0.0, 6.0
    return clamp(record, input, min_val, max_val)


@rule(torch.clamp, torch.clamp_, "clamp", "clamp_", "clip", torch.clip, "clamp_min")
def clamp(record: Recorder, input: Any, min: float | None = None, max: float | None = None) -> Any:
    limits = (-inf if min is None else float(min), inf if max is None else float(max))
    if isinstance(input, _Shifted) and limits == (0, 6):
        return _Shifted(input.value, clamped=True)
    value = value_of(record, input, "clamp")
    if limits == (0, 6):
        return apply(record, "relu6", value)
    if limits == (0, inf):
        return apply(record, "relu", value)
    if inf in limits or -inf in limits:
        raise record.unsupported(f"a clamp with one limit, {limits}")
    return apply(record, "hardtanh", value, min_val=limits[0], max_val=limits[1])


@rule(F.softmax, torch.softmax, "softmax")
def softmax(record: Recorder, input: Value, dim: int | None = None, *_: Any, **__: Any) -> Value:
    return _over_channels(record, "softmax", input, dim)


@rule(F.log_softmax, torch.log_softmax, "log_softmax")
def log_softmax(
    record: Recorder, input: Value, dim: int | None = None, *_: Any, **__: Any
) -> Value:
    return _over_channels(record, "log_softmax", input, dim)


def _layout(value: Value) -> dict[str, Any]:
    """The tensor's form, for a value that is computed from another's in the language's form."""
    return {"shape": value.shape, "layout": value.layout}


def _over_channels(record: Recorder, kind: str, input: Value, dim: int | None) -> Value:
    if input.layout == "grouped" and dim == 1 and kind == "softmax":
        groups = input.shape[1]
        return replace(apply(record, "group_softmax", input.own, groups=groups), **_layout(input))
    if input.layout in ("grouped", "swapped") or dim is None:
        input = record.plain(input)
    if dim is None or dim % len(input.shape) != input.channel_axis:
        raise record.unsupported(f"`{kind}` over dimension {dim}")
    return apply(record, kind, input)


@rule(F.glu)
def glu(record: Recorder, input: Value, dim: int = -1) -> Value:
    return _over_channels(record, "glu", input, dim)


@rule(torch.add, "add", "add_")
def add(record: Recorder, left: Any, right: Any, alpha: float = 1) -> Any:
    if not isinstance(left, Value):
        left, right = right, left
    if isinstance(right, int | float) and isinstance(left, Value) and alpha == 1:
        return left if right == 0 else _shifted(record, left, right)
    if isinstance(right, Weight) and isinstance(left, Value) and alpha == 1:
        return _per_channel(record, "channel_bias", left, right)
    if not (isinstance(left, Value) and isinstance(right, Value)):
        raise record.unsupported(f"adding {_said(right)}")
    if alpha != 1:
        right = apply(record, "scale", right, factor=float(alpha))
    if left.shape != right.shape:
        raise record.unsupported(f"adding {right.spec_shape} to {left.spec_shape}")
    return record.step(Add(), left, right)


def _said(operand: Any) -> str:
    """An operand that is no value of the network, in a message."""
    return f"`{operand.path}`" if isinstance(operand, Weight) else "a constant"


def _shifted(record: Recorder, input: Value, constant: float) -> _Shifted:
    if constant != 3:
        raise record.unsupported("adding a constant")
    return _Shifted(input)


@rule(torch.sub, "sub", "sub_")
def subtract(record: Recorder, left: Any, right: Any) -> Any:
    if not (isinstance(left, Value) and isinstance(right, Value)):
        raise record.unsupported(f"subtracting {_said(right)}")
    return add(record, left, apply(record, "scale", right, factor=-1.0))


@rule(torch.neg, "neg")
def negative(record: Recorder, input: Value) -> Value:
    return apply(record, "scale", input, factor=-1.0)


@rule(torch.mul, torch.multiply, "mul", "mul_", "multiply")
def multiply(record: Recorder, left: Any, right: Any) -> Any:
    if not isinstance(left, Value | _Shifted):
        left, right = right, left
    if isinstance(right, int | float):
        if isinstance(left, _Shifted):
            return _hard_sigmoid(record, left, right)
        return left if right == 1 else apply(record, "scale", left, factor=float(right))
    left = value_of(record, left, "multiply")
    if isinstance(right, Weight):
        return _per_channel(record, "layer_scale", left, right)
    right = value_of(record, right, "multiply")
    if len(left.shape) != len(right.shape):
        raise record.unsupported(f"multiplying {left.spec_shape} by {right.spec_shape}")
    if left.layout == right.layout == "grouped" and left.shape[:3] == right.shape[:3]:
        large = max(left, right, key=lambda value: value.shape)
        return replace(record.step(Multiply(), left.own, right.own), **_layout(large))
    return record.step(Multiply(), left, right)


def _hard_sigmoid(record: Recorder, input: _Shifted, factor: float) -> Value:
    if not input.clamped or abs(factor - 1 / 6) > 1e-9:
        raise record.unsupported("adding a constant")
    return record.step(new_op("hardsigmoid"), input.value)


def _per_channel(record: Recorder, kind: str, input: Value, weight: Weight) -> Value:
    """The product or sum with a parameter that has a value for each channel."""
    own = tuple(weight.tensor.shape)
    wanted = [1] * len(input.shape)
    wanted[input.channel_axis] = input.channels
    if (*(1,) * (len(wanted) - len(own)), *own) != tuple(wanted):
        raise record.unsupported(f"`{kind}` with a parameter of {own} for {input.spec_shape}")
    stored = (input.channels, *(1,) * input.rank)
    return record.step(new_op(kind), input, module=record.stored(weight, stored), weighted=True)


@rule(torch.div, "div", "div_")
def divide(record: Recorder, left: Any, right: Any) -> Any:
    if not isinstance(right, int | float):
        raise record.unsupported("a division of tensors")
    return multiply(record, left, 1 / right)
