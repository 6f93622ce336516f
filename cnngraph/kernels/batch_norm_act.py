"""activation(batch_norm(input) + residual) as one operator.

The operators and their autograd are in csrc/batch_norm_act. Nothing is registered for autocast:
like torch's batch norm they ignore it, so a bfloat16 input keeps float32 parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from cnngraph import kernels

_TYPES = {"cpu": {torch.float32, torch.float64, torch.bfloat16}}
if kernels.extension is not None and kernels.extension.build_info()["cuda"]:
    _TYPES["cuda"] = {*_TYPES["cpu"], torch.float16}


def batch_norm_act(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    activation: str,
    activation_args: Sequence[float] = (),
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """activation((input - mean) / sqrt(var + eps) * weight + bias + residual), where `runs`.

    Args:
        input: (N, C, ...).
        weight, bias, mean, var: (C,). If `mean` and `var` are given, they are constants; otherwise
            the statistics of the batch are used.
        activation: the name of a function in torch.nn.functional, or "gelu_tanh".
        activation_args: its positional arguments after the input.
        residual: like `input`.

    Returns the output and the mean and biased variance of the batch, to update running statistics
    with: in float32 (float64 for a float64 input), not differentiable, and empty if `mean` and
    `var` were given.

    Raises torch's ValueError if the statistics would be those of one value per channel.
    """
    return torch.ops.cnngraph.batch_norm_act.default(
        input, weight, bias, mean, var, eps, activation, activation_args, residual
    )


def update_running_statistics(
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor | None,
    batch_mean: Tensor,
    batch_var: Tensor,
    momentum: float | None,
    values_per_channel: int,
) -> None:
    """Update running statistics with the mean and biased variance of a batch, as torch does.

    Counts the batch in `batches`. Without a momentum, the running statistics are averages over all
    counted batches; without a momentum and a count they stay unchanged.
    """
    torch.ops.cnngraph.update_running_statistics.default(
        running_mean, running_var, batches, batch_mean, batch_var, momentum, values_per_channel
    )


def runs(
    input: Tensor, weight: Tensor | None, mean: Tensor | None, residual: Tensor | None = None
) -> bool:
    """Whether the compiled operator supports these arguments; otherwise use torch's functions."""
    dtype = input.dtype
    device = "cpu" if input.is_cpu else input.device.type  # is_cpu takes a fourth of the time
    if kernels.extension is None or dtype not in _TYPES.get(device, ()):
        return False
    if residual is not None and (
        residual.dtype is not dtype
        or residual.shape != input.shape
        or residual.device != input.device
    ):
        return False
    for parameter in (weight, mean):
        if parameter is None or parameter.dtype is dtype:
            continue
        if dtype is torch.float64 or parameter.dtype is not torch.float32:
            return False
    return True


def compute_type(input: Tensor) -> torch.dtype:
    """The type of statistics and computations: float64 for a float64 input, else float32."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def check_batch_size(input: Tensor) -> None:
    """Raise torch's ValueError if an input has one value per channel, and so no statistics."""
    values = input.shape[0]
    for size in input.shape[2:]:
        values *= size
    if values == 1:
        raise ValueError(
            "Expected more than 1 value per channel when training, "
            f"got input size {torch.Size(input.shape)}"
        )


def _empty_in_layout_of(input: Tensor) -> Tensor:
    """Contiguous and channels_last inputs keep their strides; others get a suggested format."""
    if input.is_contiguous() or input.movedim(1, -1).is_contiguous():
        return torch.empty_like(input)
    return torch.empty_like(input, memory_format=suggest_memory_format(input))


def _fake(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    activation: str,
    activation_args: Sequence[float],
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    if mean is None:
        check_batch_size(input)
    channels = input.shape[1] if mean is None else 0
    statistics = [input.new_empty(channels, dtype=compute_type(input)) for _ in range(2)]
    return _empty_in_layout_of(input), statistics[0], statistics[1]


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    batch_statistics: bool,
    eps: float,
    activation: str,
    activation_args: Sequence[float],
    output_mask: Sequence[bool],
    residual: Tensor | None = None,
    output: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def of_input(wanted: bool) -> Tensor:
        return _empty_in_layout_of(input) if wanted else input.new_empty(0)

    def of_channels(parameter: Tensor | None, wanted: bool) -> Tensor:
        dtype = compute_type(input) if parameter is None else parameter.dtype
        return input.new_empty(input.shape[1] if wanted else 0, dtype=dtype)

    return (
        of_input(output_mask[0]),
        of_channels(weight, output_mask[1]),
        of_channels(bias, output_mask[2]),
        of_input(output_mask[3] and (residual is not None or output is not None)),
    )


def _fake_update(*arguments: object) -> None:
    pass


if kernels.extension is not None:
    torch.library.register_fake("cnngraph::batch_norm_act", _fake)
    torch.library.register_fake("cnngraph::batch_norm_act_backward", _fake_backward)
    torch.library.register_fake("cnngraph::update_running_statistics", _fake_update)
