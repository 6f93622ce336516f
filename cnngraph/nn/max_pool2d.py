"""A max pool, with or without a ReLU before it, as one operator.

Backward needs neither the ReLU's input nor the pool's. If the operator cannot replace the modules
exactly, the modules run.
"""

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.modules.utils import _pair

from cnngraph import kernels
from cnngraph.kernels import max_pool2d as kernel
from cnngraph.nn.watched import is_transformed, is_watched


def max_pool2d(activation: nn.Module | None, pool: nn.Module, input: Tensor) -> Tensor:
    """Computes pool(activation(input)), or pool(input) if `activation` is None.

    `input` is `(N, C, H, W)`. Raises the errors of the modules.
    """
    if (
        type(pool) is not nn.MaxPool2d
        or pool.return_indices
        or (activation is not None and (type(activation) is not nn.ReLU or is_watched(activation)))
        or is_watched(pool)
        or _has_any_global_hook()
        or is_transformed()
        or not kernel.runs(input, _pair(pool.kernel_size))
        or input.numel() == 0
    ):
        kernels.warn_if_unavailable()
        return pool(input if activation is None else activation(input))
    kernel_size, stride, padding, dilation = map(
        _pair, (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    relu = activation is not None
    return kernel.max_pool2d(input, kernel_size, stride, padding, dilation, pool.ceil_mode, relu)
