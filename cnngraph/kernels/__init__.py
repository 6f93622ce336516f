"""The Python interface of csrc/, one module per operator, and the loading of the extension.

The extension is optional. If it is missing or was built for another torch, modules run plain
PyTorch and warn once, at the first use of a kernel.
"""

import functools
import importlib
import warnings
from typing import Any

import torch


def _load() -> tuple[Any, str | None]:
    """The extension, or None and the reason."""
    try:
        extension: Any = importlib.import_module("cnngraph._C")
    except (ImportError, OSError) as error:
        return None, str(error)
    built_for: str = extension.build_info()["torch"]
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        return None, f"it was built for torch {built_for}, this is {torch.__version__}"
    return extension, None


extension, _problem = _load()


def available() -> bool:
    """Whether the compiled kernels are loaded; results are the same without them, only slower."""
    return extension is not None


def problem() -> str | None:
    """Why the compiled kernels are not loaded, or None."""
    return _problem


def warn_if_unavailable() -> None:
    """Warn once that kernels run as plain PyTorch, and why."""
    if extension is None and not torch.compiler.is_compiling():
        _warn_once()


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        f"cnngraph: running on plain PyTorch; the compiled kernels are not loaded ({_problem}). "
        "To get them, install cnngraph with --no-build-isolation on a machine with torch and a C++ "
        "compiler.",
        stacklevel=4,
    )


def build_info() -> dict[str, Any]:
    """The versions the extension was built with, and the instruction set in use.

    Keys: torch, compiler, cuda (whether it has CUDA kernels), cpu_capability. Empty without the
    extension.
    """
    if extension is None:
        return {}
    return {**extension.build_info(), "cpu_capability": extension.cpu_capability()}
