"""Convolutional networks as data: checked before training, compiled into fused PyTorch modules.

Public names are imported on first use: `import cnngraph` is fast, and checking needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cnngraph.checker import check as check
    from cnngraph.checker import draw as draw
    from cnngraph.comparison.compare import Comparison as Comparison
    from cnngraph.comparison.compare import compare as compare
    from cnngraph.comparison.diff import Diff as Diff
    from cnngraph.comparison.diff import diff as diff
    from cnngraph.compiler import compile as compile
    from cnngraph.drawing import Drawing as Drawing
    from cnngraph.errors import CnngraphError as CnngraphError
    from cnngraph.errors import Diagnostic as Diagnostic
    from cnngraph.errors import SpecError as SpecError
    from cnngraph.importer import Imported as Imported
    from cnngraph.importer import from_module as from_module
    from cnngraph.lowering.network import Network as Network
    from cnngraph.ops.op import Op as Op
    from cnngraph.ops.registry import register
    from cnngraph.page.page import Page as Page
    from cnngraph.page.page import report_page as report_page
    from cnngraph.probing.probe import Probe as Probe
    from cnngraph.probing.probe import probe as probe
    from cnngraph.report.check import Report as Report
    from cnngraph.shape import ShapeError as ShapeError
    from cnngraph.shape import TensorShape as TensorShape
    from cnngraph.spec.json_schema import json_schema as json_schema
    from cnngraph.weights import LoadReport as LoadReport
    from cnngraph.weights import WeightsError as WeightsError
    from cnngraph.weights import freeze as freeze
    from cnngraph.weights import load_weights as load_weights
    from cnngraph.weights import parameter_groups as parameter_groups
    from cnngraph.weights import save_weights as save_weights
    from cnngraph.weights import unfreeze as unfreeze
    from cnngraph.weights.compiled import load_compiled as load_compiled
    from cnngraph.weights.compiled import save_compiled as save_compiled

    register_op = register
else:
    # Type checkers read the imports above, and report unknown attributes as errors.
    from importlib import import_module

    _NAMES = {
        "checker": "check draw",
        "comparison.compare": "Comparison compare",
        "comparison.diff": "Diff diff",
        "compiler": "compile",
        "drawing": "Drawing",
        "errors": "CnngraphError Diagnostic SpecError",
        "importer": "Imported from_module",
        "lowering.network": "Network",
        "ops.op": "Op",
        "ops.registry": "register_op",
        "page.page": "Page report_page",
        "probing.probe": "Probe probe",
        "report.check": "Report",
        "shape": "ShapeError TensorShape",
        "spec.json_schema": "json_schema",
        "weights": "LoadReport WeightsError freeze load_weights parameter_groups save_weights "
        "unfreeze",
        "weights.compiled": "load_compiled save_compiled",
    }
    _HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
    __all__ = sorted(_HOMES)

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'cnngraph' has no attribute {name!r}")
        module = import_module(f"cnngraph.{_HOMES[name]}")
        return getattr(module, "register" if name == "register_op" else name)

    def __dir__():
        return [*__all__, "__version__"]
