"""A convolution of an activation of a batch norm that keeps less for backward: the batch norm's
input, and no more."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnngraph.nn.batch_norm_act import batch_norm_act_again
from cnngraph.nn.conv2d import conv2d
from cnngraph.nn.recompute_on_unpack import computed_again


def batch_norm_act_conv(
    batch_norm: nn.Module, activation: nn.Module, conv: nn.Module, input: Tensor
) -> Tensor:
    """conv(activation(batch_norm(input))). Backward computes the activation again, with the
    statistics of forward.

    Where the fused operator did not run there is nothing to compute it again with, and it is kept
    as ever.
    """
    value, again = batch_norm_act_again(batch_norm, activation, input)
    if again is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return conv2d(conv, value)
    with computed_again(value, again):
        return conv2d(conv, value)
