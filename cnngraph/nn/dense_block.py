"""A dense block as one operator: each layer appends channels to its input.

If the operator cannot compute the block exactly, its modules run one by one.

Source: Huang et al., Densely Connected Convolutional Networks, https://arxiv.org/abs/1608.06993.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.kernels import batch_norm_act as norm_kernel
from cnngraph.kernels import dense_block as kernel
from cnngraph.nn.batch_norm_act import (
    ACTIVATIONS,
    batch_norm_act,
    run_to_completion,
    update_running_statistics,
)
from cnngraph.nn.batch_norm_act_conv import batch_norm_act_conv
from cnngraph.nn.conv2d import conv2d
from cnngraph.nn.watched import is_transformed, is_watched

Layer = Sequence[tuple[nn.Module, nn.Module, nn.Module]]
"""The steps of a layer, at least one: a batch norm, an activation, and a convolution each."""


def dense_block(input: Tensor, layers: Sequence[Layer], keep_activations: bool = True) -> Tensor:
    """Computes x = torch.cat([x, layer(x)], 1) for each layer.

    Running statistics are updated as the modules do. Raises the errors of the modules.

    Args:
        input: `(N, C, H, W)`.
        layers: the layers, in order.
        keep_activations: whether the inputs of convolutions are saved for backward; otherwise
            backward recomputes them.

    Returns:
        `(N, C + channels of all layers, H, W)`.
    """
    run = _operator(input, layers, keep_activations)
    if run is None:
        return _one_by_one(input, layers, keep_activations)
    return run_to_completion(run, [norm for layer in layers for norm, _, _ in layer])


def _one_by_one(input: Tensor, layers: Sequence[Layer], keep_activations: bool) -> Tensor:
    for layer in layers:
        value = input
        for batch_norm, activation, conv in layer:
            if keep_activations:
                value = conv2d(conv, batch_norm_act(batch_norm, activation, value))
            else:
                value = batch_norm_act_conv(batch_norm, activation, conv, value)
        input = torch.cat([input, value], 1)
    return input


def _operator(
    input: Tensor, layers: Sequence[Layer], keep_activations: bool
) -> Callable[[], Tensor] | None:
    """A function that runs the operator on these modules; None if it cannot replace them."""
    steps: list[Any] = [step for layer in layers for step in layer]
    if (
        not steps
        or len({len(layer) for layer in layers}) > 1
        or _has_any_global_hook()
        or is_transformed()
        or input.dim() != 4
        or input.numel() <= input.shape[1]
        or any(map(is_watched, (module for step in steps for module in step)))
        or not all(_is_plain(norm, conv) for norm, _, conv in steps)
        or not _channels_fit(input.shape[1], layers)
    ):
        return None
    lowered = {_lowered(norm, activation) for norm, activation, _ in steps}
    if len(lowered) != 1 or None in lowered:
        return None
    ((eps, fixed, activation, arguments),) = lowered  # pyright: ignore[reportGeneralTypeIssues]
    if not all(norm_kernel.runs(input, norm.weight, norm.running_mean) for norm, _, _ in steps):
        return None
    cast = _casts(input, [conv for _, _, conv in steps])
    if cast is None:
        return None

    def step_of(norm: Any, conv: Any) -> kernel.Step:
        channels, dtype = norm.num_features, norm_kernel.compute_type(input)
        return kernel.Step(
            input.new_ones(channels, dtype=dtype) if norm.weight is None else norm.weight,
            input.new_zeros(channels, dtype=dtype) if norm.bias is None else norm.bias,
            norm.running_mean if fixed else None,
            norm.running_var if fixed else None,
            cast(conv.weight),
            None if conv.bias is None else cast(conv.bias),
            conv.dilation,
            conv.groups,
        )

    def run() -> Tensor:
        arguments_of_layers = [[step_of(norm, conv) for norm, _, conv in layer] for layer in layers]
        output, means, vars = kernel.dense_block(
            input, arguments_of_layers, eps, activation, arguments, keep_activations
        )
        if not fixed:
            values = input.numel() // input.shape[1]
            for (norm, _, _), mean, var in zip(steps, means, vars, strict=True):
                if norm.training and norm.track_running_stats:
                    update_running_statistics(norm, mean, var, values)
        return output

    return run


def _is_plain(batch_norm: nn.Module, conv: nn.Module) -> bool:
    """Whether both are of torch's own classes (a subclass may differ) and keep the map's size."""
    if type(batch_norm) is not nn.BatchNorm2d or type(conv) is not nn.Conv2d:
        return False
    if conv.padding_mode != "zeros" or conv.stride != (1, 1):
        return False
    spans = [
        dilation * (size - 1)
        for dilation, size in zip(conv.dilation, conv.kernel_size, strict=True)
    ]
    padding = conv.padding
    if padding == "same":
        return not any(span % 2 for span in spans)
    sides = (0, 0) if padding == "valid" else padding
    return all(2 * side == span for side, span in zip(sides, spans, strict=True))  # pyright: ignore[reportArgumentType]


def _channels_fit(channels: int, layers: Sequence[Sequence[tuple[Any, nn.Module, Any]]]) -> bool:
    for layer in layers:
        read = channels
        for norm, _, conv in layer:
            if norm.num_features != read or conv.in_channels != read:
                return False
            read = conv.out_channels
        channels += read
    return True


def _lowered(norm: Any, activation: nn.Module) -> tuple[float, bool, str, tuple[float, ...]] | None:
    """What all steps must have in common: eps, whether statistics are fixed, and the activation."""
    lower = ACTIVATIONS.get(type(activation))
    if lower is None:
        return None
    return norm.eps, not norm.training and norm.running_mean is not None, *lower(activation)


def _casts(input: Tensor, convs: Sequence[Any]) -> Callable[[Tensor], Tensor] | None:
    """The cast that autocast applies to the parameters; None if the operator cannot do the same."""
    dtype = input.dtype
    types = {
        parameter.dtype
        for conv in convs
        for parameter in (conv.weight, conv.bias)
        if parameter is not None
    }
    device = input.device.type
    if not torch.is_autocast_enabled(device):
        return (lambda parameter: parameter) if types == {dtype} else None
    if dtype is not torch.get_autocast_dtype(device) or not types <= {dtype, torch.float32}:
        return None
    return lambda parameter: parameter.to(dtype)
