"""Convolutional networks as data: checked before a step, compiled into fused PyTorch modules.

The names below are imported when they are first used, so that `import cnngraph` is quick and checking needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnngraph.checker import check
    from cnngraph.compiler import compile
    from cnngraph.errors import CnngraphError, Diagnostic, SpecError
    from cnngraph.ops.op import Op
    from cnngraph.ops.registry import register as register_op
    from cnngraph.report.check import Report
    from cnngraph.shape import ShapeError, TensorShape
    from cnngraph.spec.json_schema import json_schema
    from cnngraph.weights import (
        LoadReport,
        WeightsError,
        freeze,
        load_weights,
        parameter_groups,
        save_weights,
        unfreeze,
    )
    from cnngraph.weights.compiled import load_compiled, save_compiled

__version__ = "0.1.0"

_HOMES = {
    "CnngraphError": "errors",
    "Diagnostic": "errors",
    "LoadReport": "weights",
    "Op": "ops.op",
    "Report": "report.check",
    "ShapeError": "shape",
    "SpecError": "errors",
    "TensorShape": "shape",
    "WeightsError": "weights",
    "check": "checker",
    "compile": "compiler",
    "freeze": "weights",
    "json_schema": "spec.json_schema",
    "load_compiled": "weights.compiled",
    "load_weights": "weights",
    "parameter_groups": "weights",
    "register_op": "ops.registry:register",
    "save_compiled": "weights.compiled",
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
