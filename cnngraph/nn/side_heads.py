"""Side heads: they run in training only, where the network returns a dict of all results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def in_training(head: nn.Module, *inputs: Tensor) -> Tensor | None:
    """The head's result in training mode, else None."""
    return head(*inputs) if head.training else None


def with_aux(
    logits: Tensor | dict[str, Tensor], heads: Mapping[str, Tensor | None]
) -> Tensor | dict[str, Any]:
    """`{"logits": logits, head name: result, ...}`, or `logits` alone if no head has a result.

    If the network has several outputs, `logits` is their dict, to which the heads are added.
    """
    computed = {name: result for name, result in heads.items() if result is not None}
    if isinstance(logits, dict):
        return {**logits, **computed}
    return {"logits": logits, **computed} if computed else logits
