"""max_pool2d(input) or max_pool2d(relu(input)) as one operator.

The operators and their autograd are in csrc/max_pool2d.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from cnngraph import kernels

_TYPES = {"cpu": {torch.float32, torch.float64, torch.bfloat16}}
if kernels.extension is not None and kernels.extension.build_info()["cuda"]:
    _TYPES["cuda"] = {*_TYPES["cpu"], torch.float16}

_MOST_POSITIONS = 255


def max_pool2d(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    relu: bool,
) -> Tensor:
    """torch's max_pool2d of `input`, or of relu(input), where `runs`.

    `input` is (N, C, H, W). As in torch, the gradient of a window goes to the first of equal
    values, or to the last NaN. Backward keeps one byte per value of the result.
    """
    return_indices = torch.is_grad_enabled() and input.requires_grad
    return torch.ops.cnngraph.max_pool2d(
        input, kernel_size, stride, padding, dilation, ceil_mode, relu, return_indices
    )[0]


def runs(input: Tensor, kernel_size: Sequence[int]) -> bool:
    """Whether the compiled operator supports these arguments; otherwise use torch's function."""
    return (
        kernels.extension is not None
        and input.dtype in _TYPES.get(input.device.type, ())
        and input.dim() == 4
        and kernel_size[0] * kernel_size[1] <= _MOST_POSITIONS
    )


def _fake(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    relu: bool,
    return_indices: bool,
) -> tuple[Tensor, Tensor]:
    output, indices = torch.ops.aten.max_pool2d_with_indices(
        input, kernel_size, stride, padding, dilation, ceil_mode
    )
    indices = torch.empty_like(indices, dtype=torch.uint8)
    return output, indices if return_indices else indices.new_empty(0)


def _fake_backward(
    grad_output: Tensor,
    indices: Tensor,
    height: int,
    width: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    result = grad_output.new_empty(*grad_output.shape[:2], height, width)
    return result.to(memory_format=suggest_memory_format(indices))


if kernels.extension is not None:
    torch.library.register_fake("cnngraph::max_pool2d", _fake)
    torch.library.register_fake("cnngraph::max_pool2d_backward", _fake_backward)
