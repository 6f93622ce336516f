"""The optional libraries of training, and the message if one is not installed.

Lightning Fabric is imported as `lightning_fabric`: importing `lightning` also imports torchmetrics,
and with it torchvision, which fails if it was built for another torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cnngraph.errors import CnngraphError

_NEEDED = ("lightning_fabric", "kornia.augmentation", "PIL.Image", "matplotlib", "tensorboard")


def require(module: str) -> Any:
    """Imports a module of the extra `train`. Raises `CnngraphError` if it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise CnngraphError(
            f'training needs {error.name}, which is not installed: pip install "cnngraph[train]"'
        ) from None


def require_all() -> None:
    """Imports what a run needs, so that nothing is found missing after hours of training."""
    for module in (
        "lightning_fabric",
        "kornia.augmentation",
        "PIL.Image",
        "matplotlib",
        "tensorboard",
    ):
        require(module)
