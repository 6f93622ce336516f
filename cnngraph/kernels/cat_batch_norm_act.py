"""A concatenation of branches that end in batch norms and activations, as one operator.

The operator and its autograd are in csrc/cat_batch_norm_act; its backward calls batch_norm_act's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from cnngraph import kernels
from cnngraph.kernels import batch_norm_act


@dataclass(frozen=True)
class Branch:
    """One branch: the input, optionally followed by a batch norm and the activation.

    The tensors and `eps` are the arguments of batch_norm_act.
    """

    input: Tensor
    normalized: bool = False
    activated: bool = False
    weight: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None
    eps: float = 0.0


def cat_batch_norm_act(
    branches: Sequence[Branch], activation: str, activation_args: Sequence[float]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The branches concatenated along their channels, where `runs`.

    Inputs are (N, C, ...). All branches have the same activation, named as in batch_norm_act;
    without a batch norm it must be a ReLU.

    Returns the output, and the batch mean and biased variance of each branch, empty for a branch
    without batch statistics. Raises torch's ValueError for one value per channel.
    """
    return torch.ops.cnngraph.cat_batch_norm_act(
        [branch.input for branch in branches],
        [branch.weight for branch in branches],
        [branch.bias for branch in branches],
        [branch.mean for branch in branches],
        [branch.var for branch in branches],
        [branch.eps for branch in branches],
        [branch.normalized for branch in branches],
        [branch.activated for branch in branches],
        activation,
        activation_args,
    )


def runs(inputs: Sequence[Tensor]) -> bool:
    """Whether the compiled operator supports these inputs; otherwise use torch's functions."""
    first = inputs[0]
    return batch_norm_act.runs(first, None, None) and all(
        input.dtype is first.dtype
        and input.device == first.device
        and input.dim() == first.dim() > 1
        and input.numel() > 0
        and input.shape[0] == first.shape[0]
        and input.shape[2:] == first.shape[2:]
        for input in inputs
    )


def _fake(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    biases: Sequence[Tensor | None],
    means: Sequence[Tensor | None],
    vars: Sequence[Tensor | None],
    eps: Sequence[float],
    normalized: Sequence[bool],
    activated: Sequence[bool],
    activation: str,
    activation_args: Sequence[float],
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    first = inputs[0]
    taken = [norm and mean is None for norm, mean in zip(normalized, means, strict=True)]
    for input, takes in zip(inputs, taken, strict=True):
        if takes:
            batch_norm_act.check_batch_size(input)

    def statistics() -> list[Tensor]:
        return [
            input.new_empty(
                input.shape[1] if takes else 0, dtype=batch_norm_act.compute_type(input)
            )
            for input, takes in zip(inputs, taken, strict=True)
        ]

    layout = torch.contiguous_format if first.is_contiguous() else suggest_memory_format(first)
    shape = (first.shape[0], sum(input.shape[1] for input in inputs), *first.shape[2:])
    return first.new_empty(shape).contiguous(memory_format=layout), statistics(), statistics()


if kernels.extension is not None:
    torch.library.register_fake("cnngraph::cat_batch_norm_act", _fake)
