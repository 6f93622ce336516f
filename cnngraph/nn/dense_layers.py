"""The layers of a dense block for evaluation, which append their maps to one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph.nn.batch_norm_act import batch_norm_act
from cnngraph.nn.folded import FoldedConv2d
from cnngraph.nn.watched import is_traced, is_transformed, is_watched


def dense_layers(input: Tensor, layers: Sequence[Sequence[Any]]) -> Tensor:
    """Computes x = torch.cat([x, layer(x)], 1) for each layer.

    Args:
        input: `(N, C, H, W)`.
        layers: of each layer a batch norm, its activation or None, and the modules after it.

    Returns:
        `(N, C + channels of all layers, H, W)`.
    """
    channels: list[Any] = [getattr(layer[-1], "out_channels", None) for layer in layers]
    if (
        None in channels
        or input.dim() != 4
        or (torch.is_grad_enabled() and input.requires_grad)  # later layers would overwrite it
        or torch.is_autocast_enabled(input.device.type)
        or torch.compiler.is_compiling()
        or is_traced()
        or is_transformed()
    ):
        for layer in layers:
            input = torch.cat([input, _run(layer, input)], 1)
        return input
    images, end, *size = input.shape
    by_pixel = input.is_contiguous(memory_format=torch.channels_last)
    buffer = torch.empty(
        (images, end + sum(channels), *size),
        dtype=input.dtype,
        device=input.device,
        memory_format=torch.channels_last if by_pixel else torch.contiguous_format,
    )
    buffer[:, :end] = input
    for layer, more in zip(layers, channels, strict=True):
        buffer[:, end : end + more] = _run(layer, buffer[:, :end])
        end += more
    return buffer


def _run(layer: Sequence[Any], input: Tensor) -> Tensor:
    norm, activation, first, *rest = layer
    value = None
    if (
        type(activation) is nn.ReLU
        and type(first) is FoldedConv2d
        and not any(map(is_watched, (norm, activation, first)))
    ):
        value = first.after_batch_norm_relu(norm, input)
    if value is None:
        value = first(batch_norm_act(norm, activation, input))
    for module in rest:
        value = module(value)
    return value
