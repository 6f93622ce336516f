"""A context in which autograd saves a function that recomputes a tensor, and not the tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Unpack = Callable[[], Tensor]


def recompute_on_unpack(value: Tensor, recompute: Unpack) -> saved_tensors_hooks:
    """A context in which operators that save `value` for backward save `recompute` in its place.

    `recompute()` returns a tensor equal to `value`. All other saved tensors go to the hooks that
    are already active, such as those of a checkpoint. If there are none, backward raises
    `RuntimeError` if such a tensor was modified in place, as it does without these hooks.
    """
    identity = _identity(value)  # not the tensor: autograd keeps the hooks and their closures alive
    autograd: Any = torch._C._autograd  # pyright: ignore[reportAttributeAccessIssue]
    outer: Any = autograd._top_saved_tensors_default_hooks(False)

    def pack(saved: Tensor) -> Unpack:
        if _identity(saved) == identity:
            return recompute
        if outer is None:
            return _unchanged(saved)
        outer_pack, outer_unpack = outer
        packed: Any = outer_pack(saved)

        def unpack() -> Tensor:
            return outer_unpack(packed)

        return unpack

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
