"""Whether a module may run as part of a fused operator, or must be called itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.fx import _symbolic_trace


def is_watched(module: nn.Module) -> bool:
    """Whether calling the module does more than its class's `forward`."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
    )


def is_traced() -> bool:
    """Whether torch traces the call for export or rewriting, so that no fused operator may run.

    True under `torch.export`, the ONNX exporter, `torch.jit.trace` and `torch.fx` (including FX
    quantization), but not under `torch.compile`, which supports the operators.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or _symbolic_trace.is_fx_symbolic_tracing()


def is_transformed() -> bool:
    """Whether the call is traced, transformed by `torch.func`, or under forward-mode autograd.

    The operators have no rules for these.
    """
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    return (
        is_traced()
        or functorch.get_dynamic_layer_stack_depth() > 0
        or forward_ad._current_level >= 0
    )
