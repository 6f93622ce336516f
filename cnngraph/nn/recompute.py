"""A part of a network that keeps for backward what it reads, and is computed again there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from cnngraph.nn.batch_norm_act import CopiedBuffers
from cnngraph.nn.drop_path import DropPath
from cnngraph.nn.watched import is_transformed, is_watched

_STOCHASTIC = (_DropoutNd, DropPath, nn.RReLU, nn.FractionalMaxPool2d, nn.MultiheadAttention)


def recomputed(
    part: Callable[..., Tensor],
    held: Sequence[nn.Module | nn.Parameter],
    *inputs: Tensor,
    unknown: bool,
    stops_early: bool,
) -> Tensor:
    """part(*inputs). `held` are the modules and parameters that the part uses.

    The second time random numbers are the same, and running statistics are not updated; hooks run again.
    `unknown` says whether the part has ops of plugins, which may draw random numbers. Where none can be drawn, their state
    is left alone: nothing may ask for it while a CUDA graph is captured.
    `stops_early` spares the last operator, which must keep none of its result: stopped while it does, it would hold
    itself alive for ever.
    """

    def run(*inputs: Tensor) -> Tensor:
        return part(*inputs)

    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
        return run(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _buffers_copied(held)

    preserve = unknown or _has_any_global_hook() or any(map(_may_draw, held))
    with set_checkpoint_early_stop(stops_early):
        result = checkpoint(
            run, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=preserve
        )
    assert isinstance(result, Tensor)
    return result


def _may_draw(held: nn.Module | nn.Parameter) -> bool:
    """Whether it is known to draw random numbers, or has hooks, or is no module of torch's or ours."""
    return isinstance(held, nn.Module) and any(
        isinstance(module, _STOCHASTIC)
        or is_watched(module)
        or not type(module).__module__.startswith(("torch.nn.modules.", "cnngraph.nn."))
        for module in held.modules()
    )


@contextmanager
def _buffers_copied(held: Sequence[nn.Module | nn.Parameter]) -> Iterator[None]:
    """What updates running statistics updates copies of them, which are thrown away."""
    modules = [
        module
        for root in held
        if isinstance(root, nn.Module)
        for module in root.modules()
        if module._buffers
    ]
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
