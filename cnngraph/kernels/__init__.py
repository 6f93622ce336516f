"""The Python face of csrc/, one module per kernel, and the loading of the compiled extension.

The extension is optional. Where it is missing, or was built for another torch, every kernel runs
as plain PyTorch and says so once, when it is first used.
"""

import functools
import warnings
from typing import Any

import torch


def _load() -> tuple[Any, str | None]:
    """The extension, or None and why."""
    try:
        from cnngraph import _C  # pyright: ignore[reportAttributeAccessIssue]
    except (ImportError, OSError) as error:
        return None, str(error)
    built_for = _C.build_info()["torch"]
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        return None, f"it was built for torch {built_for}, this is {torch.__version__}"
    return _C, None


extension, _problem = _load()


def available() -> bool:
    """Whether the compiled kernels are loaded; without them the same results come more slowly."""
    return extension is not None


def warn_if_unavailable() -> None:
    """Say once, at the first use of a kernel, that it runs as plain PyTorch, and why."""
    if extension is None and not torch.compiler.is_compiling():
        _warn_once()


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        f"cnngraph: running on plain PyTorch; the compiled kernels are not loaded ({_problem}). "
        "Install cnngraph with --no-build-isolation where torch and a C++ compiler are present "
        "to get them.",
        stacklevel=4,
    )


def build_info() -> dict[str, Any]:
    """What the extension was built with and the instruction set chosen; empty without it."""
    if extension is None:
        return {}
    return {**extension.build_info(), "cpu_capability": extension.cpu_capability()}
