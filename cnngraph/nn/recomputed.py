"""A part of a network that keeps for backward what it reads, and is computed again there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cnngraph.nn.batch_norm_act import CopiedBuffers, is_transformed


def recomputed(part: nn.Module, held: Sequence[nn.Module | nn.Parameter], *inputs: Tensor) -> Tensor:
    """part(*held, *inputs). `held` are the modules and parameters that the part uses, which stay at their own paths.

    The second time random numbers are the same, and running statistics are not updated; hooks run again.
    """

    def run(*inputs: Tensor) -> Tensor:
        return part(*held, *inputs)

    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
        return run(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _buffers_copied(held)

    result = checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts)
    assert isinstance(result, Tensor)
    return result


@contextmanager
def _buffers_copied(held: Sequence[nn.Module | nn.Parameter]) -> Iterator[None]:
    """What updates running statistics updates copies of them, which are thrown away."""
    modules = [module for root in held if isinstance(root, nn.Module) for module in root.modules() if module._buffers]
    own = [module._buffers for module in modules]
    for module, buffers in zip(modules, own, strict=True):
        module._buffers = CopiedBuffers(
            (name, None if buffer is None else buffer.clone()) for name, buffer in buffers.items()
        )
    try:
        yield
    finally:
        for module, buffers in zip(modules, own, strict=True):
            module._buffers = buffers
