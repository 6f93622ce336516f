"""Finds the layer at which a training step stops being finite."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph.training.sharding import whole


def all_finite(tensors: Any) -> bool:
    """Whether all values of all tensors are finite."""
    held = list(tensors)
    return not held or bool(torch.isfinite(whole(torch.nn.utils.get_total_norm(held))))


def first_nonfinite(net: nn.Module, step: Callable[[], Tensor]) -> str:
    """Runs a step, and says which value of it is the first that is not finite.

    Args:
        net: the network; its gradients are replaced.
        step: the forward pass, up to the loss.

    Returns:
        A clause such as "the output of `layer1.0.conv1` is not finite".
    """
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def check(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            if not torch.isfinite(output).all():
                found.append(f"the output of `{name}` is not finite")
            elif output.requires_grad:
                output.register_hook(partial(look, name))

        return check

    def look(name: str, gradient: Tensor) -> None:
        if not torch.isfinite(gradient).all():
            found.append(f"the gradient of the output of `{name}` is not finite")

    for name, value in net.named_parameters():
        if not torch.isfinite(whole(value)).all():
            return f"the weight `{name}` is not finite"
    leaves = [(name, part) for name, part in net.named_modules() if not any(part.children())]
    handles = [part.register_forward_hook(watch(name)) for name, part in leaves]
    try:
        net.zero_grad()
        loss = step()
        if loss.requires_grad:  # even if found: in sharded networks, all processes run backward
            loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    for name, value in net.named_parameters():
        if value.grad is not None and not torch.isfinite(whole(value.grad)).all():
            found.append(f"the gradient of `{name}` is not finite")
    return found[0] if found else "the output of every layer is finite, and only the loss overflows"
