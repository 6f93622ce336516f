"""Modules by name: `torchvision:resnet50`, `timm:resnet50`, `package.module:callable`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnngraph.errors import CnngraphError, closest, first_line
from cnngraph.importer.blocks import snake_case
from cnngraph.importer.trace import place_of

_TORCHVISION_OPERATORS = (
    "nms", "qnms", "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward",
    "roi_pool", "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d",
    "_deform_conv2d_backward",
)  # fmt: skip
"""The operators that torchvision must find in its own extension."""
_SIZE = (3, 224, 224)


Named = tuple[nn.Module, str, tuple[int, ...]]
"""A module, its name, and the shape of one image."""


def module_by_name(source: str, *, pretrained: bool = False) -> Named:
    """A module, its name, and the shape of the image it was made for.

    Args:
        source: `torchvision:NAME`, `timm:NAME`, or `package.module:callable`, where the callable
            returns a module; the current folder is searched too.
        pretrained: load the published weights of a torchvision or timm network.

    Raises:
        CnngraphError: the package is not installed, or has no such network.
    """
    package, separator, name = source.partition(":")
    if not (package and separator and name):
        raise CnngraphError(
            f"`{source}` names no module: write torchvision:NAME, timm:NAME or"
            " package.module:callable"
        )
    if package == "torchvision":
        return _torchvision(name, pretrained)
    if package == "timm":
        return _timm(name, pretrained)
    if pretrained:
        raise CnngraphError("--pretrained is for networks of torchvision and timm")
    return _callable(package, name)


def import_torchvision() -> Any:
    """The package torchvision, which also works beside a torch that it was not built for.

    Raises `CnngraphError` if it is not installed.
    """
    if "torchvision" not in sys.modules:
        _declare_operators()
    return _import("torchvision")


_library: torch.library.Library | None = None


def _declare_operators() -> None:
    """Declares the operators of torchvision's extension, in case the extension does not load.

    torchvision's models do not need them, but its import does.
    """
    global _library
    if _library is None and not _extension_loads():
        _library = torch.library.Library("torchvision", "DEF")
        for name in _TORCHVISION_OPERATORS:
            _library.define(f"{name}(Tensor input) -> Tensor")


def _extension_loads() -> bool:
    from importlib.util import find_spec

    spec = find_spec("torchvision")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    files = sorted(folder.glob("_C*")) if folder is not None else []
    try:
        for file in files:
            torch.ops.load_library(str(file))
    except OSError:
        return False
    return bool(files)


def _torchvision(name: str, pretrained: bool) -> Named:
    models = import_torchvision().models
    known: list[str] = models.list_models(models)
    if name not in known:
        raise CnngraphError(f"torchvision has no network `{name}`{_similar(name, known)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a default of GoogLeNet and Inception
        module = models.get_model(name, weights="DEFAULT" if pretrained else None)
    return module, name, (3, 299, 299) if name == "inception_v3" else _SIZE


def _timm(name: str, pretrained: bool) -> Named:
    import_torchvision()
    timm = _import("timm")
    if not timm.is_model(name):
        raise CnngraphError(f"timm has no network `{name}`{_similar(name, timm.list_models())}")
    module = timm.create_model(name, pretrained=pretrained)
    return module, name.partition(".")[0], tuple(module.default_cfg.get("input_size", _SIZE))


def _callable(package: str, name: str) -> Named:
    sys.path.insert(0, "")
    try:
        known = import_module(package)
    except Exception as error:
        raise CnngraphError(f"cannot import {package}: {_said(error)}") from error
    finally:
        sys.path.remove("")
    found = getattr(known, name, None)
    if not callable(found):
        callables = [each for each, value in vars(known).items() if callable(value)]
        raise CnngraphError(f"{package} has no callable `{name}`{_similar(name, callables)}")
    try:
        module = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise CnngraphError(f"{package}:{name} cannot be called: {_said(error)}") from error
    if not isinstance(module, nn.Module):
        raise CnngraphError(f"{package}:{name} returns a {type(module).__name__}, not a module")
    return module, snake_case(name), _SIZE


def _said(error: Exception) -> str:
    """What an error of someone else's code says, and where it was raised."""
    return f"{place_of(error)}{first_line(error)}"


def _import(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise CnngraphError(f"{package} is not installed: pip install {package}") from error


def _similar(name: str, known: Sequence[str]) -> str:
    near = closest(name, known)
    return f"; did you mean `{near}`?" if near else ""
