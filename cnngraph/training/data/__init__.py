"""Sources of images: `open_data` recognises the format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cnngraph.errors import CnngraphError, closest
from cnngraph.shape import TensorShape
from cnngraph.training.data.arrays import (
    has_cifar,
    has_idx,
    open_cifar,
    open_digits,
    open_idx,
    open_npz,
)
from cnngraph.training.data.files import Progress, open_csv, open_folder
from cnngraph.training.data.images import Data, DatasetImages, Images, require_labels

__all__ = ["Data", "Images", "Progress", "from_datasets", "open_data"]

EMBEDDED = ("digits",)


def open_data(
    source: str | Path,
    shape: TensorShape,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Data:
    """Opens a source of images for a network.

    Args:
        source: `digits`, a folder of images, a folder with the IDX files of MNIST or the binary
            files of CIFAR, a CSV file, or an `.npz` file.
        shape: the network's input, which all images are converted to.
        skip_bad: leave out files that cannot be read as images.
        progress: callback `(activity, share)`.

    Raises:
        CnngraphError: there is no such source, it is damaged, or a file cannot be read.
    """
    if len(shape) != 3:
        raise CnngraphError(f"the network's input is {shape}, not an image")
    path = Path(source)
    if str(source) == "digits" and not path.exists():
        return open_digits(shape)
    if path.is_dir():
        if has_idx(path):
            return open_idx(path, shape)
        if has_cifar(path):
            return open_cifar(path, shape)
        return open_folder(path, shape, skip_bad=skip_bad, progress=progress)
    if not path.exists():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        usable = [item.name for item in beside if item.is_dir() or item.suffix in (".csv", ".npz")]
        near = closest(path.name, [*EMBEDDED, *usable])
        near = near if near is None or near in EMBEDDED else path.with_name(near)
        hint = f"did you mean `{near}`?" if near else "give `digits`, a folder, a .csv or an .npz"
        raise CnngraphError(f"there is no data `{source}`; {hint}")
    if path.suffix.lower() == ".csv":
        return open_csv(path, shape, skip_bad=skip_bad, progress=progress)
    if path.suffix.lower() == ".npz":
        return open_npz(path, shape)
    raise CnngraphError(f"{source} is no known format: give a folder, a .csv or an .npz")


def from_datasets(
    train: Any, val: Any, shape: TensorShape, classes: Sequence[str] | None = None
) -> Data:
    """The data of two map-style datasets, whose items are an image and a label.

    Images are tensors `(C, H, W)` of uint8 or between 0 and 1, arrays `(H, W, C)`, or Pillow's.
    Labels come from the dataset's `targets` or `labels`, or from reading every item once.

    Raises:
        CnngraphError: a label is out of range.
    """
    parts = [DatasetImages(part, _labels(part), shape) for part in (train, val)]
    names = classes or getattr(train, "classes", None)
    found = max(int(part.labels.max()) for part in parts) + 1
    known = tuple(map(str, names or range(found)))
    for part, what in zip(parts, ("train", "val"), strict=True):
        require_labels(part.labels, len(known), what)
    return Data("datasets", parts[0], parts[1], known)


def _labels(dataset: Any) -> torch.Tensor:
    given = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if given is None:
        given = [dataset[index][1] for index in range(len(dataset))]
    return torch.as_tensor(given).long()
