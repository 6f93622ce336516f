"""A dense block as one operator.

The operators and their autograd are in csrc/dense_block.
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
    """A norm, the activation of the block, and a convolution.

    `mean` and `var` are those of a norm in evaluation, else None. The convolution has stride 1 and
    the padding that keeps the map's size.
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
        """The parameters."""
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
    """The input and the results of all layers, concatenated along the channels.

    Each layer reads the input and the results of all layers before it. All layers have the same
    number of steps, and either all or no steps have a mean and variance.

    Args:
        input: (N, C, H, W), not empty.
        eps: of all norms.
        activation, activation_args: as in batch_norm_act.
        keep_activations: keep the inputs of convolutions for backward instead of recomputing them.

    Returns the output, and the batch mean and biased variance of each norm, layer after layer, if
    the steps have none: in float32 (float64 for a float64 input), not differentiable.

    Raises torch's ValueError for one value per channel.
    """
    steps = [step for layer in layers for step in layer]
    biases = [step.conv_bias for step in steps]
    if any(bias is not None for bias in biases):
        biases = [
            step.conv_weight.new_zeros(len(step.conv_weight))
            if step.conv_bias is None
            else step.conv_bias
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


def _channels(
    input: Tensor, conv_weights: Sequence[Tensor], steps_of_layer: int
) -> Iterator[tuple[int, bool]]:
    """The channels that each step reads and whether it begins a layer, then those of the output."""
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
        _empty_map(input, channels),
        statistics(),
        statistics(),
        [_empty_map(input, channels) for channels, first in steps if not first]
        if keep >= _KEEP_MAPS
        else [],
        [
            input.new_empty(0)
            if first and _multiplies(input, weight, group, bool(conv_biases))
            else _empty_map(input, channels)
            for (channels, first), weight, group in zip(steps, conv_weights, groups, strict=True)
        ]
        if keep >= _KEEP_ACTIVATIONS
        else [],
    )


def _empty_map(input: Tensor, channels: int) -> Tensor:
    shape = (input.shape[0], channels, *input.shape[2:])
    return input.new_empty(shape).contiguous(memory_format=_layout(input))


def _multiplies(input: Tensor, weight: Tensor, groups: int, has_bias: bool) -> bool:
    """Whether the operator computes a layer's first convolution together with its norm.

    The normalised map is then never stored.
    """
    return (
        input.device.type == "cpu"
        and input.dtype is torch.float32
        and _layout(input) is torch.channels_last
        and groups == 1
        and not has_bias
        and kernels.extension is not None
        and kernels.extension.pointwise_takes(list(weight.shape))
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
    """Of the convolutions, from the shapes of the tensors."""
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
    """As if all gradients were requested."""
    return 2 * _flops(input, norm_weights, norm_biases, conv_weights)


if kernels.extension is not None:
    torch.library.register_fake("cnngraph::dense_block", _fake)
    torch.library.register_fake("cnngraph::dense_block_backward", _fake_backward)
    register_flop_formula(torch.ops.cnngraph.dense_block)(_flops)
    register_flop_formula(torch.ops.cnngraph.dense_block_backward)(_backward_flops)
