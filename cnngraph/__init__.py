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
    from cnngraph.weights import (
        LoadReport,
        WeightsError,
        freeze,
        load_weights,
        parameter_groups,
        save_weights,
        unfreeze,
    )

__version__ = "0.1.0"

_HOMES = {
    "CnngraphError": "errors",
    "Diagnostic": "errors",
    "LoadReport": "weights",
    "Op": "ops.op",
    "Report": "checking",
    "ShapeError": "graph",
    "SpecError": "errors",
    "TensorShape": "graph",
    "WeightsError": "weights",
    "check": "checking",
    "compile": "compiler",
    "freeze": "weights",
    "json_schema": "schema",
    "load_compiled": "artifact",
    "load_weights": "weights",
    "parameter_groups": "weights",
    "register_op": "ops.registry:register",
    "save_compiled": "artifact",
    "save_weights": "weights",
    "unfreeze": "weights",
}

__all__ = [
    "CnngraphError",
    "Diagnostic",
    "LoadReport",
    "Op",
    "Report",
    "ShapeError",
    "SpecError",
    "TensorShape",
    "WeightsError",
    "check",
    "compile",
    "freeze",
    "json_schema",
    "load_compiled",
    "load_weights",
    "parameter_groups",
    "register_op",
    "save_compiled",
    "save_weights",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnngraph' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"cnngraph.{module}"), attribute or name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
