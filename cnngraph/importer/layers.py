"""Convolutions, linear layers, normalizations and pools, as ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from cnngraph.importer.rules import owner, ranked, rule, sizes
from cnngraph.importer.steps import new_op
from cnngraph.importer.values import Recorder, Value


@rule(F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d)
def conv(
    record: Recorder,
    input: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    module, input = owner(record, weight, "convolution"), record.plain(input)
    out, _, *kernel = weight.tensor.shape
    op = new_op(
        ranked("conv", input),
        out_channels=out,
        kernel_size=tuple(kernel),
        stride=sizes(stride, input.rank),
        padding=sizes(padding, input.rank),
        dilation=sizes(dilation, input.rank),
        groups=groups,
        bias=bias is not None,
    )
    return record.step(op, input, module=module, weighted=True)


@rule(
    F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
)  # fmt: skip
def conv_transpose(
    record: Recorder,
    input: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    module, input = owner(record, weight, "transposed convolution"), record.plain(input)
    _, out, *kernel = weight.tensor.shape
    op = new_op(
        ranked("conv_transpose", input),
        out_channels=out * groups,
        kernel_size=tuple(kernel),
        stride=sizes(stride, input.rank),
        padding=sizes(padding, input.rank),
        output_padding=sizes(output_padding, input.rank),
        groups=groups,
        dilation=sizes(dilation, input.rank),
        bias=bias is not None,
    )
    return record.step(op, input, module=module, weighted=True)


@rule(F.linear)
def linear(record: Recorder, input: Value, weight: Any, bias: Any = None) -> Value:
    module = owner(record, weight, "linear layer")
    return apply_linear(record, input, weight.tensor.shape[0], bias is not None, module)


def apply_linear(record: Recorder, input: Value, features: int, bias: bool, module: str) -> Value:
    """A linear layer over flat features, or over the last dimension of (N, H, W, C)."""
    if input.rank not in (0, 2) or (input.rank == 2 and input.layout != "last"):
        shape = "x".join(map(str, input.shape[1:]))
        raise record.unsupported(f"a linear layer over the last dimension of {shape}")
    op = new_op("linear2d" if input.rank else "linear", out_features=features, bias=bias)
    return record.step(op, input, module=module, weighted=True)


@rule(F.batch_norm, torch.batch_norm)
def batch_norm(
    record: Recorder,
    input: Value,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    module = owner(record, weight or running_mean, "batch_norm")
    declared = getattr(record.root.get_submodule(module), "momentum", momentum)
    op = new_op(
        "batch_norm",
        eps=eps,
        momentum=declared,
        affine=weight is not None,
        track_running_stats=running_mean is not None,
    )
    return record.step(op, record.plain(input), module=module, weighted=True)


@rule(F.layer_norm, torch.layer_norm)
def layer_norm(
    record: Recorder,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    module = "" if weight is None else owner(record, weight, "layer_norm")
    affine, biased = weight is not None, bias is not None or weight is None
    return apply_layer_norm(record, input, normalized_shape, eps, affine, biased, module)


def apply_layer_norm(
    record: Recorder,
    input: Value,
    normalized_shape: Sequence[int],
    eps: float,
    affine: bool,
    bias: bool,
    module: str,
) -> Value:
    """A layer norm over the channels of each position, or over flat features."""
    if tuple(normalized_shape) != input.shape[-1:] or (input.rank and input.layout != "last"):
        raise record.unsupported(f"a layer norm over {tuple(normalized_shape)} of {input.shape}")
    op = new_op("layer_norm", eps=eps, elementwise_affine=affine, bias=bias)
    return record.step(op, input, module=module, weighted=affine)


@rule(F.group_norm, torch.group_norm)
def group_norm(
    record: Recorder,
    input: Value,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    module = "" if weight is None else owner(record, weight, "group_norm")
    op = new_op("group_norm", num_groups=num_groups, eps=eps, affine=weight is not None)
    return record.step(op, record.plain(input), module=module, weighted=weight is not None)


@rule(F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d)
def max_pool(
    record: Recorder,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if return_indices:
        raise record.unsupported("a max pool that returns indices")
    input = record.plain(input)
    op = new_op(
        ranked("max_pool", input),
        kernel_size=sizes(kernel_size, input.rank),
        stride=sizes(stride, input.rank) if stride else None,
        padding=sizes(padding, input.rank),
        dilation=sizes(dilation, input.rank),
        ceil_mode=ceil_mode,
    )
    return record.step(op, input)


@rule(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
def avg_pool(
    record: Recorder,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    input = record.plain(input)
    fields: dict[str, Any] = {} if input.rank == 1 else {"divisor_override": divisor_override}
    op = new_op(
        ranked("avg_pool", input),
        kernel_size=sizes(kernel_size, input.rank),
        stride=sizes(stride, input.rank) if stride else None,
        padding=sizes(padding, input.rank),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        **fields,
    )
    return record.step(op, input)


@rule(
    F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, torch.adaptive_avg_pool1d
)
def adaptive_avg_pool(record: Recorder, input: Value, output_size: Any) -> Value:
    return _adaptive(record, input, output_size, "avg")


@rule(
    F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d, torch.adaptive_max_pool1d
)
def adaptive_max_pool(record: Recorder, input: Value, output_size: Any) -> Value:
    return _adaptive(record, input, output_size, "max")


def _adaptive(record: Recorder, input: Value, output_size: Any, which: str) -> Value:
    input = record.plain(input)
    size = sizes(output_size, input.rank)
    if set(size) == {1}:
        return record.step(new_op(ranked(f"global_{which}_pool", input)), input)
    return record.step(new_op(ranked(f"adaptive_{which}_pool", input), output_size=size), input)
