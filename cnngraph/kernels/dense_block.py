"""A whole dense block in one operator: where it runs, and what torch.compile must know of it.

The operators and their autograd live in csrc/dense_block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.utils.flop_counter import register_flop_formula

from cnngraph import kernels
from cnngraph.kernels.batch_norm_act import check_batch_size, compute_type

_KEEP_NOTHING, _KEEP_MAPS, _KEEP_ACTIVATIONS = range(3)


@dataclass(frozen=True)
class Step:
    """A norm, the activation of the block, and the convolution that reads it.

    The convolution has stride 1 and pads as much as keeps the map's size.
    """

    norm_weight: Tensor
    norm_bias: Tensor
    mean: Tensor | None
    var: Tensor | None
    conv_weight: Tensor
    conv_bias: Tensor | None
    dilation: tuple[int, int]
    groups: int

    @property
    def differentiable(self) -> list[Tensor]:
        parameters = (self.norm_weight, self.norm_bias, self.conv_weight, self.conv_bias)
        return [parameter for parameter in parameters if parameter is not None]


def dense_block(
    input: Tensor,
    layers: Sequence[Sequence[Step]],
    eps: float,
    activation: str,
    activation_args: Sequence[float],
    keep_activations: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The input and the results of all layers, each of what there was before it, side by side in their channels.

    Also the mean and the biased variance of the batch for each norm, layer after layer, where the steps give none: in
    float32 (float64 for a float64 input) and not differentiable. All layers have as many steps, and all steps a mean
    and variance, or none.

    Backward computes the activations again unless they are kept.
    """
    steps = [step for layer in layers for step in layer]
    biases = [step.conv_bias for step in steps]
    if any(bias is not None for bias in biases):
        biases = [
            step.conv_weight.new_zeros(len(step.conv_weight)) if step.conv_bias is None else step.conv_bias
            for step in steps
        ]
    else:
        biases = []
    tensors = [input, *(tensor for step in steps for tensor in step.differentiable)]
    keep = _KEEP_NOTHING
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        keep = _KEEP_ACTIVATIONS if keep_activations else _KEEP_MAPS
    output, means, vars, _, _ = torch.ops.cnngraph.dense_block(
        input,
        [step.norm_weight for step in steps],
        [step.norm_bias for step in steps],
        [step.conv_weight for step in steps],
        biases,
        [step.mean for step in steps if step.mean is not None],
        [step.var for step in steps if step.var is not None],
        eps,
        activation,
        activation_args,
        [size for step in steps for size in step.dilation],
        [step.groups for step in steps],
        len(layers[0]),
        keep,
    )
    return output, means, vars


def _channels(input: Tensor, conv_weights: Sequence[Tensor], steps_of_layer: int) -> Iterator[tuple[int, bool]]:
    """How many channels each step reads, and whether it begins a layer; at last those of the output."""
    maps = read = input.shape[1]
    for index, weight in enumerate(conv_weights):
        yield read, index % steps_of_layer == 0
        read = weight.shape[0]
        if (index + 1) % steps_of_layer == 0:
            maps = read = maps + read
    yield maps, True


def _fake(
    input: Tensor,
    norm_weights: Sequence[Tensor],
    norm_biases: Sequence[Tensor],
    conv_weights: Sequence[Tensor],
    conv_biases: Sequence[Tensor],
    means: Sequence[Tensor],
    vars: Sequence[Tensor],
    eps: float,
    activation: str,
    activation_args: Sequence[float],
    dilation: Sequence[int],
    groups: Sequence[int],
    steps_of_layer: int,
    keep: int,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    if not means:
        check_batch_size(input)
    *steps, (channels, _) = _channels(input, conv_weights, steps_of_layer)

    def statistics() -> list[Tensor]:
        dtype = compute_type(input)
        return [] if means else [input.new_empty(channels, dtype=dtype) for channels, _ in steps]

    return (
        _empty_buffer(input, channels),
        statistics(),
        statistics(),
        [_empty_map(input, channels) for channels, first in steps if not first] if keep >= _KEEP_MAPS else [],
        [
            input.new_empty(0)
            if first and _multiplies(input, weight, group, conv_biases)
            else _empty_map(input, channels)
            for (channels, first), weight, group in zip(steps, conv_weights, groups, strict=True)
        ]
        if keep >= _KEEP_ACTIVATIONS
        else [],
    )


def _empty_map(input: Tensor, channels: int) -> Tensor:
    shape = (input.shape[0], channels, *input.shape[2:])
    return input.new_empty(shape).contiguous(memory_format=_layout(input))


def _empty_buffer(input: Tensor, channels: int) -> Tensor:
    """As DenseBlockArguments::empty_buffer: on the CPU, rows of a multiple of 1024 bytes are padded."""
    rows = input.device.type == "cpu" and _layout(input) is torch.channels_last
    if not rows or channels * input.itemsize % 1024 != 0:
        return _empty_map(input, channels)
    batch, _, height, width = input.shape
    row = channels + 64 // input.itemsize
    return input.new_empty_strided((batch, channels, height, width), (height * width * row, 1, width * row, row))


def _multiplies(input: Tensor, weight: Tensor, groups: int, conv_biases: Sequence[Tensor]) -> bool:
    """Whether a layer's first convolution is made with its norm, so that what it reads is never there."""
    return (
        input.device.type == "cpu"
        and input.dtype is torch.float32
        and _layout(input) is torch.channels_last
        and weight.shape[2:] == (1, 1)
        and min(weight.shape[:2]) >= 32
        and groups == 1
        and not conv_biases
    )


def _layout(input: Tensor) -> torch.memory_format:
    return torch.contiguous_format if input.is_contiguous() else suggest_memory_format(input)


def _fake_backward(
    grad_output: Tensor,
    output: Tensor,
    maps: Sequence[Tensor],
    activations: Sequence[Tensor],
    input: Tensor,
    norm_weights: Sequence[Tensor],
    norm_biases: Sequence[Tensor],
    conv_weights: Sequence[Tensor],
    conv_biases: Sequence[Tensor],
    means: Sequence[Tensor],
    vars: Sequence[Tensor],
    batch_statistics: bool,
    eps: float,
    activation: str,
    activation_args: Sequence[float],
    dilation: Sequence[int],
    groups: Sequence[int],
    steps_of_layer: int,
    output_mask: Sequence[bool],
) -> list[Tensor]:
    given = [input, *norm_weights, *norm_biases, *conv_weights, *conv_biases]
    gradients = [
        torch.empty_like(tensor) if wanted else input.new_empty(0)
        for tensor, wanted in zip(given, output_mask, strict=True)
    ]
    if output_mask[0]:
        gradients[0] = input.new_empty(input.shape).contiguous(memory_format=_layout(input))
    return gradients


def _flops(
    input: Sequence[int],
    norm_weights: Sequence[Sequence[int]],
    norm_biases: Sequence[Sequence[int]],
    conv_weights: Sequence[Sequence[int]],
    *others: object,
    **named: object,
) -> int:
    """Of the convolutions, from the shapes of all tensors."""
    pixels = input[0] * input[2] * input[3]
    return sum(2 * pixels * prod(weight) for weight in conv_weights)


def _backward_flops(
    grad_output: Sequence[int],
    output: Sequence[int],
    maps: object,
    activations: object,
    input: Sequence[int],
    norm_weights: Sequence[Sequence[int]],
    norm_biases: Sequence[Sequence[int]],
    conv_weights: Sequence[Sequence[int]],
    *others: object,
    **named: object,
) -> int:
    """As if all gradients were wanted."""
    return 2 * _flops(input, norm_weights, norm_biases, conv_weights)


if kernels.extension is not None:
    torch.library.register_fake("cnngraph::dense_block", _fake)
    torch.library.register_fake("cnngraph::dense_block_backward", _fake_backward)
    register_flop_formula(torch.ops.cnngraph.dense_block)(_flops)
    register_flop_formula(torch.ops.cnngraph.dense_block_backward)(_backward_flops)
