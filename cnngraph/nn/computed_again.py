"""What autograd is to keep for backward, kept as the function that computes it once more."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def computed_again(value: Tensor, again: Callable[[], Tensor]) -> saved_tensors_hooks:
    """While it is entered, whatever is to keep `value` for backward keeps `again`, which computes the same."""
    identity = _identity(value)  # not the tensor: autograd keeps the hooks, and what they hold

    def pack(saved: Tensor) -> Tensor | Callable[[], Tensor]:
        return again if _identity(saved) == identity else saved

    return saved_tensors_hooks(pack, _unpack)


def _unpack(packed: Tensor | Callable[[], Tensor]) -> Tensor:
    return packed if isinstance(packed, Tensor) else packed()


def _identity(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
