"""Batch norms whose statistics are those of the images of all processes.

Each layer needs one all-reduce forward and one backward, of two values per channel. The operator
of batch_norm_act.py does the rest, with its activation and residual: forward it normalizes with
given statistics, and backward it returns the sums that are exchanged. Besides the exchange,
synchronisation costs further passes over the map, because the operator was made to do everything
at once: torch computes the statistics, and adds the terms of the mean and the variance to the
gradient (Ioffe and Szegedy, 2015, section 3).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnngraph.kernels import batch_norm_act as kernel
from cnngraph.nn.watched import is_transformed

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SyncBatchNorm(_BatchNorm):
    """A batch norm with the statistics of the images of all processes, on CPUs and GPUs.

    Outside training, and in a single process, it computes what `torch.nn.BatchNorm2d` does.
    `sync_batch_norms` turns the batch norms of a network into it.
    """

    plain: type[nn.Module]
    """The class that `plain_batch_norms` gives back."""

    def _check_input_dim(self, input: Tensor) -> None:
        cast(Any, self.plain)._check_input_dim(self, input)

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes `(N, C, ...)`."""
        if not synchronises(self):
            return super().forward(input)
        self._check_input_dim(input)
        if kernel.runs(input, self.weight, self.running_mean) and not is_transformed():
            return sync_batch_norm_act(self, input)[0]
        return _in_plain_torch(self, input)


def sync_batch_norms(net: nn.Module) -> None:
    """Synchronises every batch norm of a network that uses the statistics of batches, in place.

    The modules keep their identity, parameters and buffers: only their class changes.
    """
    for module in net.modules():
        if type(module) in _KINDS:
            vars(module)["plain"] = type(module)
            module.__class__ = SyncBatchNorm


def plain_batch_norms(net: nn.Module) -> None:
    """Undoes `sync_batch_norms`."""
    for module in net.modules():
        if type(module) is SyncBatchNorm:
            module.__class__ = vars(module).pop("plain")  # pyright: ignore[reportAttributeAccessIssue]


def synchronises(batch_norm: nn.Module) -> bool:
    """Whether the batch norm exchanges its statistics with other processes now."""
    return (
        type(batch_norm) is SyncBatchNorm
        and (batch_norm.training or batch_norm.running_mean is None)
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def sync_batch_norm_act(
    norm: SyncBatchNorm,
    input: Tensor,
    activation: str = "identity",
    activation_args: Sequence[float] = (),
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """activation(batch_norm(input) + residual), with the statistics of all processes.

    Updates the running statistics. For the arguments, see `cnngraph.kernels.batch_norm_act`.

    Returns the output, and the mean and biased variance, which are the same in every process.
    """
    output, mean, var, count = _SyncBatchNormAct.apply(
        input, norm.weight, norm.bias, residual, norm.eps, activation, tuple(activation_args)
    )
    _update_running_statistics(norm, mean, var, count)
    return output, mean, var


def _in_plain_torch(norm: SyncBatchNorm, input: Tensor) -> Tensor:
    """The batch norm alone, for what the operator does not support."""
    functional: Any = importlib.import_module("torch.distributed.nn.functional")
    exact = input.to(kernel.compute_type(input))
    shape = (1, -1, *(1,) * (input.ndim - 2))
    dims = [0, *range(2, input.ndim)]
    values = input.numel() // input.shape[1]
    count = torch.tensor(values, dtype=torch.float64, device=input.device)
    distributed.all_reduce(count)
    mean = functional.all_reduce(exact.sum(dims)) / count
    centred = exact - mean.view(shape)
    var = functional.all_reduce(centred.square().sum(dims)) / count
    output = centred * torch.rsqrt(var + norm.eps).view(shape)
    if norm.affine:
        output = output * norm.weight.view(shape) + norm.bias.view(shape)
    with torch.no_grad():
        _update_running_statistics(norm, mean, var, count)
    return output.to(input.dtype)


def _update_running_statistics(
    norm: SyncBatchNorm, mean: Tensor, var: Tensor, count: Tensor
) -> None:
    if not norm.training or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    share = 1 / norm.num_batches_tracked if momentum is None else momentum
    unbiased = var * (count / (count - 1))
    for running, found in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.add_((found.to(running.dtype) - running) * share)


class _SyncBatchNormAct(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        eps: float,
        activation: str,
        activation_args: tuple[float, ...],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _statistics(input)
        output = kernel.batch_norm_act(
            input, weight, bias, mean, var, eps, activation, activation_args, residual
        )[0]
        ctx.save_for_backward(input, weight, bias, residual, mean, var, count)
        ctx.call = eps, activation, activation_args
        ctx.mark_non_differentiable(mean, var, count)
        return output, mean, var, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor, *_: object) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        input, weight, bias, residual, mean, var, count = ctx.saved_tensors
        eps, activation, activation_args = ctx.call
        scale = torch.ones_like(mean) if weight is None else weight
        shift = torch.zeros_like(mean) if bias is None else bias
        linear = activation == "identity"
        with_residual = residual is not None and ctx.needs_input_grad[3]
        # With the statistics as constants: dz * scale / std, and the sums of dz * x_hat and dz.
        grad_input, grad_weight, grad_bias, grad_residual = (
            torch.ops.cnngraph.batch_norm_act_backward.default(
                grad_output, input, scale, shift, mean, var, False, eps, activation,
                activation_args, (True, True, True, with_residual and not linear),
                None if linear else residual, None,
            )
        )  # fmt: skip
        if ctx.needs_input_grad[0]:
            sums = torch.stack([grad_weight, grad_bias]).to(mean.dtype)
            distributed.all_reduce(sums)
            inverse = torch.rsqrt(var + eps)
            of_x_hat, of_one = sums * (scale.to(mean.dtype) * inverse / count.to(mean.dtype))
            slope = of_x_hat * inverse
            shape = (1, -1, *(1,) * (input.ndim - 2))
            slope, offset = slope.view(shape), (slope * mean - of_one).view(shape)
            if grad_input.dtype == mean.dtype:
                grad_input.add_(offset).addcmul_(input, slope, value=-1)
            else:
                grad_input = (grad_input + offset - input * slope).to(input.dtype)
        return (
            grad_input if ctx.needs_input_grad[0] else None,
            grad_weight if ctx.needs_input_grad[1] else None,
            grad_bias if ctx.needs_input_grad[2] else None,
            (grad_output if linear else grad_residual) if with_residual else None,
            None,
            None,
            None,
        )


def _statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean and biased variance of each channel over all processes, and the number of values.

    The sums are exchanged in float64, so that a variance is not lost beside a large mean.
    """
    dtype = kernel.compute_type(input)
    channels = input.shape[1]
    values = input.numel() // channels
    var, mean = torch.var_mean(input.to(dtype), [0, *range(2, input.ndim)], correction=0)
    var, mean = var.double(), mean.double()
    sums = torch.cat([mean, var + mean.square(), mean.new_ones(1)]) * values
    distributed.all_reduce(sums)
    count = sums[-1]
    mean, square = sums[:-1].view(2, channels) / count
    return mean.to(dtype), (square - mean.square()).clamp(min=0).to(dtype), count
