"""A batch norm, the addition of a residual, and an activation, computed by one operator.

This is a function of ordinary modules: both stay plain `torch.nn` at their own paths, so
checkpoints, `convert_sync_batchnorm`, freezing by `isinstance`, hooks and replaced activations
keep working. If the operator cannot replace the modules exactly, the modules run.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils import checkpoint

from cnngraph import kernels
from cnngraph.kernels import batch_norm_act as kernel
from cnngraph.nn.sync_batch_norm import SyncBatchNorm, sync_batch_norm_act, synchronises
from cnngraph.nn.watched import is_transformed, is_watched

# Exact types only: a subclass may compute something else.
_BATCH_NORMS = frozenset({nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, SyncBatchNorm})


class CopiedBuffers(dict[str, Tensor | None]):
    """Copies of a module's buffers that replace them during a call; changes to them are dropped."""


Result = TypeVar("Result")
Lowered = tuple[str, tuple[float, ...]]
"""An activation's name in the operator, and its arguments."""

ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Lowered]] = {
    nn.Identity: lambda module: ("identity", ()),
    nn.ReLU: lambda module: ("relu", ()),
    nn.ReLU6: lambda module: ("hardtanh", (module.min_val, module.max_val)),
    nn.Hardtanh: lambda module: ("hardtanh", (module.min_val, module.max_val)),
    nn.LeakyReLU: lambda module: ("leaky_relu", (module.negative_slope,)),
    nn.ELU: lambda module: ("elu", (module.alpha,)),
    nn.SiLU: lambda module: ("silu", ()),
    nn.GELU: lambda module: ("gelu" if module.approximate == "none" else "gelu_tanh", ()),
    nn.Sigmoid: lambda module: ("sigmoid", ()),
    nn.Tanh: lambda module: ("tanh", ()),
    nn.Hardsigmoid: lambda module: ("hardsigmoid", ()),
    nn.Hardswish: lambda module: ("hardswish", ()),
    nn.Mish: lambda module: ("mish", ()),
}


def batch_norm_act(
    batch_norm: nn.Module,
    activation: nn.Module | None,
    input: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """Computes activation(batch_norm(input) + residual) and updates the running statistics.

    Args:
        batch_norm: a batch norm; any module other than torch's three classes just runs.
        activation: an activation, or None.
        input: `(N, C, ...)`, of the rank that the batch norm accepts.
        residual: a tensor to add, of the shape of `input`, or None.

    Returns:
        A tensor of the shape of `input`.

    Raises:
        The errors of the modules and of the addition.
    """
    return batch_norm_act_with_recompute(batch_norm, activation, input, residual)[0]


def batch_norm_act_with_recompute(
    batch_norm: nn.Module,
    activation: nn.Module | None,
    input: Tensor,
    residual: Tensor | None = None,
) -> tuple[Tensor, Callable[[], Tensor] | None]:
    """Like `batch_norm_act`, and returns a function that recomputes the result.

    The function updates no statistics and has no gradient. It is None if the modules ran.
    """
    call = _lowered(batch_norm, activation, input, residual)
    if call is None:
        kernels.warn_if_unavailable()
        value = batch_norm(input)
        value = value if residual is None else value + residual
        return value if activation is None else activation(value), None

    norm = cast(Any, batch_norm)  # one of _BATCH_NORMS
    weight, bias = norm.weight, norm.bias
    mean, var = fixed_statistics(norm)

    def compute(mean: Tensor | None, var: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return kernel.batch_norm_act(input, weight, bias, mean, var, norm.eps, *call, residual)

    def run() -> tuple[Tensor, Callable[[], Tensor]]:
        if synchronises(norm):
            output, batch_mean, batch_var = sync_batch_norm_act(norm, input, *call, residual)
        else:
            output, batch_mean, batch_var = compute(mean, var)
            if norm.training and norm.track_running_stats:
                values = input.numel() // input.shape[1]
                update_running_statistics(norm, batch_mean, batch_var, values)
        statistics = (batch_mean, batch_var) if mean is None else (mean, var)

        def recompute() -> Tensor:
            with torch.no_grad():
                return compute(*statistics)[0]

        return output, recompute

    return run_to_completion(run, [batch_norm])


def lowered(batch_norm: nn.Module, activation: nn.Module | None, input: Tensor) -> Lowered | None:
    """The activation's name in the operator and its arguments; None if the modules must run.

    They also must run if the batch norm exchanges its statistics with other processes.

    Raises the batch norm's error if `input` has the wrong rank.
    """
    return None if synchronises(batch_norm) else _lowered(batch_norm, activation, input)


def _lowered(
    batch_norm: nn.Module,
    activation: nn.Module | None,
    input: Tensor,
    residual: Tensor | None = None,
) -> Lowered | None:
    lower = ACTIVATIONS.get(nn.Identity if activation is None else type(activation))
    if (
        lower is None
        or type(batch_norm) not in _BATCH_NORMS
        or is_watched(batch_norm)
        or (activation is not None and is_watched(activation))
        or _has_any_global_hook()
        or is_transformed()
        or not kernel.runs(input, batch_norm.weight, batch_norm.running_mean, residual)  # pyright: ignore
        or input.numel() == 0
    ):
        return None
    cast(Any, batch_norm)._check_input_dim(input)
    return lower(activation)


def fixed_statistics(batch_norm: Any) -> tuple[Tensor | None, Tensor | None]:
    """The running mean and variance if the batch norm normalizes with them, else two None."""
    if batch_norm.training or batch_norm.running_mean is None:
        return None, None
    return batch_norm.running_mean, batch_norm.running_var


def run_to_completion(run: Callable[[], Result], batch_norms: Sequence[nn.Module]) -> Result:
    """Calls `run`, and updates the statistics of `batch_norms` even if a checkpoint stops it."""
    if torch.compiler.is_compiling():
        return run()
    try:
        return run()
    except checkpoint._StopRecomputationError:
        # Recomputation stops when the last tensor is saved. torch's batch norm has updated its
        # statistics by then, and ours has not.
        if any(
            norm.training and not isinstance(norm._buffers, CopiedBuffers) for norm in batch_norms
        ):
            with torch.no_grad():
                run()
        raise


def update_running_statistics(
    batch_norm: Any, batch_mean: Tensor, batch_var: Tensor, values_per_channel: int
) -> None:
    """Updates the running statistics of a batch norm, as its forward does in training.

    Args:
        batch_norm: a batch norm of `torch.nn`.
        batch_mean: the mean of each channel of the batch, `(C,)`.
        batch_var: the biased variance of each channel of the batch, `(C,)`.
        values_per_channel: the number of values that they were computed from.
    """
    mean, var, batches = (
        batch_norm.running_mean,
        batch_norm.running_var,
        batch_norm.num_batches_tracked,
    )
    if mean is not None and var is not None:
        momentum = batch_norm.momentum
        kernel.update_running_statistics(
            mean, var, batches, batch_mean, batch_var, momentum, values_per_channel
        )
    elif batches is not None:
        batches.add_(1)
