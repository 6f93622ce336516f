"""What autograd is to keep for backward, kept as the function that computes it once more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Unpack = Callable[[], Tensor]


def computed_again(value: Tensor, again: Unpack) -> saved_tensors_hooks:
    """While it is entered, whatever is to keep `value` for backward keeps `again`, which computes
    the same.

    What else is kept goes to the hooks that are there already, such as a checkpoint's. Without any,
    backward raises where it was changed in place, as it does without these hooks.
    """
    identity = _identity(value)  # not the tensor: autograd keeps the hooks, and what they hold
    outer = torch._C._autograd._top_saved_tensors_default_hooks(False)  # pyright: ignore[reportAttributeAccessIssue]

    def pack(saved: Tensor) -> Unpack:
        if _identity(saved) == identity:
            return again
        if outer is None:
            return _unchanged(saved)
        outer_pack, outer_unpack = outer
        packed = outer_pack(saved)
        return lambda: outer_unpack(packed)

    return saved_tensors_hooks(pack, _unpack)


def _unpack(unpack: Unpack) -> Tensor:
    return unpack()


def _unchanged(saved: Tensor) -> Unpack:
    version = None if saved.is_inference() else saved._version

    def unpack() -> Tensor:
        if version is not None and saved._version != version:
            raise RuntimeError(
                f"a tensor of {tuple(saved.shape)} needed for gradient computation has been "
                f"modified by an inplace operation"
            )
        return saved

    return unpack


def _identity(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
