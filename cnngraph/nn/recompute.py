"""A part of a network that saves only its inputs for backward, and is recomputed there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
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
    modules: Sequence[nn.Module | nn.Parameter],
    *inputs: Tensor,
    has_plugins: bool,
    early_stop: bool,
) -> Tensor:
    """Computes part(*inputs); backward recomputes it from `inputs`.

    Recomputation draws the same random numbers and leaves running statistics alone. Hooks run
    twice. The state of the random number generator is saved only if the part may draw from it,
    because it cannot be read while a CUDA graph is captured.

    Args:
        part: a function of `inputs`.
        modules: the modules and parameters that `part` uses.
        inputs: the tensors that `part` reads.
        has_plugins: whether the part has ops of plugins, which may draw random numbers.
        early_stop: skip the last operator during recomputation. It must not save its own result:
            a recomputation stopped there would keep a reference to itself and never be freed.
    """

    def run(*inputs: Tensor) -> Tensor:
        return part(*inputs)

    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed():
        return run(*inputs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _buffers_copied(modules)

    preserve = has_plugins or _has_any_global_hook() or any(map(_may_draw, modules))
    with set_checkpoint_early_stop(early_stop):
        result = checkpoint(
            run, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=preserve
        )
    assert isinstance(result, Tensor)
    return result


def _may_draw(root: nn.Module | nn.Parameter) -> bool:
    """Whether a module may draw random numbers: it has hooks, or is of an unknown type."""
    return isinstance(root, nn.Module) and any(
        isinstance(module, _STOCHASTIC)
        or is_watched(module)
        or not type(module).__module__.startswith(("torch.nn.modules.", "cnngraph.nn."))
        for module in root.modules()
    )


@contextmanager
def _buffers_copied(roots: Sequence[nn.Module | nn.Parameter]) -> Generator[None, None, None]:
    """A context in which modules update copies of their buffers, which are then dropped."""
    modules = [
        module
        for root in roots
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
