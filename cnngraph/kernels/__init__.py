"""The Python interface of csrc/, one module per operator, and the loading of the extension.

The extension is optional. If it is missing or was built for another minor version of torch, modules
run plain PyTorch and warn once, at the first use of a kernel.
"""

import functools
import importlib
import warnings
from typing import Any

import torch


def _load() -> tuple[Any, str | None]:
    """The extension, or None and the reason."""
    try:
        # Loading an extension of another torch could crash: its version is in a file beside it.
        built_for: str = importlib.import_module("cnngraph.kernels._built_for").torch
    except ImportError:
        built_for = ""
    if built_for and not _fits(built_for):
        return None, _for_another(built_for)
    try:
        extension: Any = importlib.import_module("cnngraph._C")
    except (ImportError, OSError) as error:
        return None, str(error)
    built_for = extension.build_info()["torch"]
    return (extension, None) if _fits(built_for) else (None, _for_another(built_for))


def _fits(built_for: str) -> bool:
    return built_for.split(".")[:2] == torch.__version__.split(".")[:2]


def _for_another(built_for: str) -> str:
    return f"they were built for torch {built_for}, this is {torch.__version__}"


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
