"""Convolutional networks as data: checked before a step, compiled into fused PyTorch modules.

The names below are imported when they are first used, so that `import cnngraph` is quick and checking needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnngraph.artifact import load_compiled, save_compiled
    from cnngraph.checking import Report, check
    from cnngraph.compiler import compile
    from cnngraph.errors import CnngraphError, Diagnostic, SpecError
    from cnngraph.graph import ShapeError, TensorShape
    from cnngraph.ops.op import Op
    from cnngraph.ops.registry import register as register_op
    from cnngraph.schema import json_schema

__version__ = "0.1.0"

_HOMES = {
    "CnngraphError": "errors",
    "Diagnostic": "errors",
    "Op": "ops.op",
    "Report": "checking",
    "ShapeError": "graph",
    "SpecError": "errors",
    "TensorShape": "graph",
    "check": "checking",
    "compile": "compiler",
    "json_schema": "schema",
    "load_compiled": "artifact",
    "register_op": "ops.registry:register",
    "save_compiled": "artifact",
}

__all__ = [
    "CnngraphError",
    "Diagnostic",
    "Op",
    "Report",
    "ShapeError",
    "SpecError",
    "TensorShape",
    "check",
    "compile",
    "json_schema",
    "load_compiled",
    "register_op",
    "save_compiled",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnngraph' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"cnngraph.{module}"), attribute or name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
