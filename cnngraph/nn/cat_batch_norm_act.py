"""A concatenation of branches that end in a batch norm, an activation, or both, as one operator.

Each branch writes its result directly into the concatenation, and backward reads its slice of the
gradient there. A branch that the operator cannot compute exactly runs as its modules, and its
result is copied.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph import kernels
from cnngraph.kernels import cat_batch_norm_act as kernel
from cnngraph.nn.batch_norm_act import (
    Lowered,
    batch_norm_act,
    fixed_statistics,
    lowered,
    run_to_completion,
    update_running_statistics,
)
from cnngraph.nn.watched import is_transformed, is_watched

Branch = tuple[nn.Module | None, nn.Module | None, Tensor]
"""A batch norm or None, an activation or None, and their input."""


def cat_batch_norm_act(*branches: Branch) -> Tensor:
    """Concatenates activation(batch_norm(input)) of each branch along the channels.

    Inputs are `(N, C_i, H, W)`, and the result is `(N, sum of C_i, H, W)`. Running statistics are
    updated as the modules do. Raises the errors of the modules and of `torch.cat`.
    """
    calls = [_lowered(*branch) for branch in branches]
    activation = next((call for call in calls if call not in (None, _IDENTITY)), _IDENTITY)
    # The operator takes one activation: branches with another one run before it.
    known = [call in (activation, _IDENTITY) for call in calls]
    branches = tuple(
        branch if fits else (None, None, _run(*branch))
        for branch, fits in zip(branches, known, strict=True)
    )
    norms = [norm for norm, _, _ in branches if norm is not None]
    nothing = activation == _IDENTITY and not norms
    if nothing or is_transformed() or not kernel.runs([input for *_, input in branches]):
        kernels.warn_if_unavailable()
        return torch.cat([_run(*branch) for branch in branches], 1)

    def run() -> Tensor:
        output, means, vars = kernel.cat_batch_norm_act(
            [_branch(*branch) for branch in branches], *activation
        )
        for (norm, _, input), mean, var in zip(branches, means, vars, strict=True):
            if norm is not None and norm.training and norm.track_running_stats:
                update_running_statistics(norm, mean, var, input.numel() // input.shape[1])
        return output

    return run_to_completion(run, norms)


_IDENTITY: Lowered = ("identity", ())


def _lowered(norm: nn.Module | None, activation: nn.Module | None, input: Tensor) -> Lowered | None:
    """The activation's name in the operator and its arguments; None if the modules must run."""
    if norm is not None:
        return lowered(norm, activation, input)
    if activation is None:
        return _IDENTITY
    plain = (
        type(activation) is nn.ReLU and not is_watched(activation) and not _has_any_global_hook()
    )
    return ("relu", ()) if plain else None


def _branch(norm: nn.Module | None, activation: nn.Module | None, input: Tensor) -> kernel.Branch:
    activated = activation is not None and type(activation) is not nn.Identity
    if norm is None:
        return kernel.Branch(input, activated=activated)
    mean, var = fixed_statistics(norm)
    return kernel.Branch(input, True, activated, norm.weight, norm.bias, mean, var, norm.eps)  # pyright: ignore[reportArgumentType]


def _run(norm: nn.Module | None, activation: nn.Module | None, input: Tensor) -> Tensor:
    if norm is not None:
        return batch_norm_act(norm, activation, input)
    return input if activation is None else activation(input)
