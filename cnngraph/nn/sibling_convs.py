"""Convolutions of one input, run as one over the ordinary modules: it reads the input once, and makes one gradient of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.kernels import conv2d as kernel
from cnngraph.nn.batch_norm_act import is_transformed, is_watched
from cnngraph.nn.conv2d import conv2d, geometry_of
from cnngraph.nn.recompute_on_unpack import computed_again


def sibling_convs(convs: Sequence[nn.Module], input: Tensor) -> tuple[Tensor, ...]:
    """conv(input) of each: slices of the channels of one map, where one convolution can stand for them all."""
    plain = [conv for conv in convs if type(conv) is nn.Conv2d and not is_watched(conv)]
    geometry = geometry_of(plain[0]) if plain else None
    if (
        geometry is None
        or len(plain) < len(convs)
        or not _are_alike(plain)
        or _has_any_global_hook()
        or is_transformed()
    ):
        return tuple(conv2d(conv, input) for conv in convs)
    padding, stride, dilation, groups = geometry
    weights, biases = [conv.weight for conv in plain], [conv.bias for conv in plain if conv.bias is not None]
    weight, bias = torch.cat(weights), torch.cat(biases) if biases else None
    ours = kernel.runs(input, weight)
    keeps_it = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    with computed_again(weight, _side_by_side_again(weights)) if keeps_it else nullcontext():
        maps = (kernel.conv2d if ours else F.conv2d)(input, weight, bias, stride, padding, dilation, groups)
    return maps.split([conv.out_channels for conv in plain], dim=-3)


def _are_alike(convs: Sequence[nn.Conv2d]) -> bool:
    """Whether they differ in nothing but their weights' values and number."""
    first, *others = convs
    plain = first.groups == 1 and first.padding_mode == "zeros" and first.stride == (1, 1)
    return plain and all(_kind(conv) == _kind(first) for conv in others)


def _kind(conv: nn.Conv2d) -> list[object]:
    tensors = [tensor for tensor in (conv.weight, conv.bias) if tensor is not None]
    held = [(tensor.shape[1:], tensor.dtype, tensor.device, tensor.requires_grad) for tensor in tensors]
    return [geometry_of(conv), conv.groups, conv.padding_mode, *held]


def _side_by_side_again(weights: Sequence[Tensor]) -> Callable[[], Tensor]:
    """What backward calls. Raises where one has changed since, as torch does of what it has kept."""
    versions = [weight._version for weight in weights]

    @torch.no_grad()
    def again() -> Tensor:
        if [weight._version for weight in weights] != versions:
            raise RuntimeError("a weight needed for gradient computation has been modified by an inplace operation")
        return torch.cat(list(weights))

    return again
