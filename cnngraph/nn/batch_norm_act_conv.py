"""A batch norm, an activation and a convolution that save only their input for backward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnngraph.nn.batch_norm_act import batch_norm_act_with_recompute
from cnngraph.nn.conv2d import conv2d
from cnngraph.nn.recompute_on_unpack import recompute_on_unpack


def batch_norm_act_conv(
    batch_norm: nn.Module, activation: nn.Module, conv: nn.Module, input: Tensor
) -> Tensor:
    """Computes conv(activation(batch_norm(input))). Backward recomputes the activation.

    `input` is `(N, C, H, W)`. The activation is recomputed with the statistics of forward. If the
    fused operator cannot run, the activation is saved.
    """
    value, recompute = batch_norm_act_with_recompute(batch_norm, activation, input)
    if recompute is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return conv2d(conv, value)
    with recompute_on_unpack(value, recompute):
        return conv2d(conv, value)
