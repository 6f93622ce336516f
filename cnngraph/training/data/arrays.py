"""Data sets in arrays: scikit-learn's digits, IDX files, CIFAR's binary files, and `.npz`."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from cnngraph.errors import CnngraphError, listing
from cnngraph.shape import TensorShape
from cnngraph.training.data.images import (
    Data,
    TensorImages,
    class_names,
    require_labels,
    split,
)
from cnngraph.training.extras import require

_IDX_PARTS = {"train": "train", "val": "t10k"}
_NPZ_KEYS = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ("x_train", "y_train", "x_val", "y_val"),
    ("train_images", "train_labels", "val_images", "val_labels"),
    ("images", "labels"),
    ("x", "y"),
)
"""Names of arrays that are recognised: images and labels to train on, and to evaluate on."""


def open_digits(shape: TensorShape) -> Data:
    """The 1797 handwritten digits of scikit-learn, 8x8 pixels, a quarter of them to evaluate on."""
    digits: Any = require("sklearn.datasets").load_digits()
    images = torch.tensor(digits.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.tensor(digits.target, dtype=torch.int64)
    train, val = require("sklearn.model_selection").train_test_split(
        range(len(labels)), test_size=0.25, stratify=labels, random_state=0
    )
    return _data("digits", images, labels, sorted(train), sorted(val), shape)


def open_idx(folder: Path, shape: TensorShape) -> Data:
    """A folder with the four files of MNIST or Fashion-MNIST, compressed or not.

    A `classes.txt` beside them may name the classes, one per line.
    """
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for part, prefix in _IDX_PARTS.items():
        images = _idx(_idx_file(folder, f"{prefix}-images", 3), 3)
        labels = _idx(_idx_file(folder, f"{prefix}-labels", 1), 1)
        if len(images) != len(labels):
            raise CnngraphError(
                f"{folder}: {prefix} has {len(images)} images and {len(labels)} labels"
            )
        parts[part] = images[:, None], labels.long()
    return _parts(str(folder), parts, shape, _classes_file(folder))


def has_idx(folder: Path) -> bool:
    """Whether a folder contains IDX files."""
    return any(folder.glob("train-images*ubyte*"))


def open_cifar(folder: Path, shape: TensorShape) -> Data:
    """A folder with CIFAR-10 or CIFAR-100 in the binary version."""
    hundred = (folder / "train.bin").is_file()
    train = (
        [folder / "train.bin"] if hundred else [folder / f"data_batch_{n}.bin" for n in range(1, 6)]
    )
    val = [folder / ("test.bin" if hundred else "test_batch.bin")]
    names = folder / ("fine_label_names.txt" if hundred else "batches.meta.txt")
    parts = {
        part: tuple(map(torch.cat, zip(*[_cifar(path, hundred) for path in paths], strict=True)))
        for part, paths in {"train": train, "val": val}.items()
    }
    known = names.read_text().split() if names.is_file() else None
    return _parts(str(folder), parts, shape, known, classes=100 if hundred else 10)


def has_cifar(folder: Path) -> bool:
    """Whether a folder contains the binary version of CIFAR-10 or CIFAR-100."""
    return (folder / "data_batch_1.bin").is_file() or (folder / "train.bin").is_file()


def open_npz(path: Path, shape: TensorShape) -> Data:
    """A file of arrays by `numpy.savez`: images `(N, H, W)` or `(N, H, W, C)`, and labels.

    Without images to evaluate on, a fifth of each class is kept for that.
    """
    try:
        with numpy.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # damaged files make zip and numpy raise anything
        raise CnngraphError(f"cannot read {path}: {error or 'it is damaged'}") from None
    keys = next((keys for keys in _NPZ_KEYS if all(key in arrays for key in keys)), None)
    if keys is None:
        raise CnngraphError(
            f"{path} has the arrays {listing([*arrays])}; expected are `x_train`, `y_train`,"
            " `x_test` and `y_test`, or `images` and `labels`"
        )
    pairs = [_npz_pair(path, arrays, *keys[at : at + 2]) for at in range(0, len(keys), 2)]
    known = _classes_file(path.parent)
    if len(pairs) == 2:
        return _parts(str(path), dict(zip(("train", "val"), pairs, strict=True)), shape, known)
    ((images, labels),) = pairs
    classes = class_names(int(labels.max()) + 1, known, str(path))
    require_labels(labels, len(classes), str(path))
    return _data(str(path), images, labels, *split(labels), shape, classes)


def _npz_pair(path: Path, arrays: Mapping[str, Any], x: str, y: str) -> tuple[Tensor, Tensor]:
    images, labels = arrays[x], arrays[y].reshape(-1)
    if images.ndim not in (3, 4) or len(images) != len(labels) or not len(images):
        raise CnngraphError(
            f"{path}: `{x}` has the shape {images.shape} and `{y}` {arrays[y].shape}; expected are"
            " images (N, H, W) or (N, H, W, C), and N labels"
        )
    if not numpy.issubdtype(labels.dtype, numpy.integer):
        raise CnngraphError(
            f"{path}: the labels in `{y}` must be whole numbers, not {labels.dtype}"
        )
    stacked = torch.from_numpy(images)
    stacked = stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)
    if stacked.is_floating_point() and (stacked.min() < 0 or stacked.max() > 1):
        raise CnngraphError(f"{path}: the images in `{x}` must be uint8, or between 0 and 1")
    if not stacked.is_floating_point():
        stacked = stacked.to(torch.uint8)
    return stacked, torch.from_numpy(labels.astype("int64"))


def _idx_file(folder: Path, prefix: str, dimensions: int) -> Path:
    for middle in ("-", "."):
        for ending in ("", ".gz"):
            path = folder / f"{prefix}{middle}idx{dimensions}-ubyte{ending}"
            if path.is_file():
                return path
    raise CnngraphError(f"{folder} has no {prefix}-idx{dimensions}-ubyte or .gz")


def _idx(path: Path, dimensions: int) -> Tensor:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile) as error:
        raise CnngraphError(f"cannot read {path}: {error}") from None
    header = 4 * (1 + dimensions)
    sizes = numpy.frombuffer(data[4:header], ">u4").tolist()
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != header + numpy.prod(sizes):
        raise CnngraphError(f"{path} is not an IDX file of {dimensions} dimensions, or is damaged")
    return torch.from_numpy(numpy.frombuffer(data, "u1", offset=header).reshape(sizes).copy())


def _cifar(path: Path, hundred: bool) -> tuple[Tensor, Tensor]:
    """Records of the labels (coarse and fine for CIFAR-100) and 3x32x32 bytes."""
    labels = 2 if hundred else 1
    record = labels + 3 * 32 * 32
    if not path.is_file():
        raise CnngraphError(f"{path.parent} has no {path.name}")
    data = numpy.fromfile(path, "u1")
    if not len(data) or len(data) % record:
        raise CnngraphError(
            f"{path} is damaged: {len(data)} bytes are not a multiple of {record}, the size of a"
            " record"
        )
    records = torch.from_numpy(data.reshape(-1, record))
    return records[:, labels:].reshape(-1, 3, 32, 32), records[:, labels - 1].long()


def _classes_file(folder: Path) -> list[str] | None:
    path = folder / "classes.txt"
    if not path.is_file():
        return None
    return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]


def _parts(
    name: str,
    parts: Mapping[str, tuple[Tensor, ...]],
    shape: TensorShape,
    known: list[str] | None,
    classes: int | None = None,
) -> Data:
    (images, labels), (val_images, val_labels) = parts["train"], parts["val"]
    names = class_names(classes or int(labels.max()) + 1, known, name)
    for part in (labels, val_labels):
        require_labels(part, len(names), name)
    train, val = TensorImages(images, labels, shape), TensorImages(val_images, val_labels, shape)
    return Data(name, train, val, names)


def _data(
    name: str,
    images: Tensor,
    labels: Tensor,
    train: list[int],
    val: list[int],
    shape: TensorShape,
    classes: tuple[str, ...] = tuple("0123456789"),
) -> Data:
    parts = [
        TensorImages(images[part], labels[part], shape, [f"image {index}" for index in part])
        for part in (train, val)
    ]
    return Data(name, parts[0], parts[1], classes)
