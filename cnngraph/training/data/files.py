"""Images in files: a folder with a subfolder for each class, or a CSV of paths and labels."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnngraph.errors import CnngraphError, listing
from cnngraph.shape import TensorShape
from cnngraph.training.data.images import Data, TensorImages, resized, split
from cnngraph.training.extras import require

ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)
_VALIDATION = ("val", "valid", "validation", "test")
_PATH_COLUMNS = ("path", "image", "file", "filename")
_LABEL_COLUMNS = ("label", "class")

MOST_KEPT = 1 << 30
"""Bytes of the largest set of decoded images that is kept in memory."""

Progress = Callable[[str, float], None]


class _File(NamedTuple):
    path: Path
    label: int


class FileImages:
    """Images that are read from their files for every batch."""

    def __init__(self, files: Sequence[_File], shape: TensorShape) -> None:
        self.paths = [file.path for file in files]
        self.labels = torch.tensor([file.label for file in files])
        self.shape = shape

    def batch(self, indices: Sequence[int]) -> Tensor:
        """See `Images`."""
        return torch.stack([read_image(self.paths[index], self.shape) for index in indices])

    def name(self, index: int) -> str:
        """See `Images`."""
        return str(self.paths[index])


def read_image(path: Path | Any, shape: TensorShape) -> Tensor:
    """An image file as uint8 `(C, H, W)` of the given shape.

    Args:
        path: the file, or an open binary file.
        shape: the shape of the result, with 1 or 3 channels.

    Raises:
        CnngraphError: the file cannot be read as an image, or the shape is not that of one.
    """
    image_module, ops = require("PIL.Image"), require("PIL.ImageOps")
    if shape.channels not in (1, 3):
        raise CnngraphError(
            f"the network's input has {shape.channels} channels; image files have 1 or 3"
        )
    name = path if isinstance(path, Path) else path.name
    try:
        if isinstance(path, Path) and not path.stat().st_size:
            raise CnngraphError(f"{name} is empty: it has zero bytes")
        with image_module.open(path) as opened:
            opened.draft("RGB", (2 * shape[2], 2 * shape[1]))  # JPEGs decode faster
            upright = ops.exif_transpose(opened)
            image = upright.convert("L" if shape.channels == 1 else "RGB")
    except CnngraphError:
        raise
    except FileNotFoundError:
        raise CnngraphError(f"cannot read {name}: it does not exist") from None
    except Exception as error:  # Pillow's decoders raise anything for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CnngraphError(f"{name} cannot be read as an image: {reason}") from None
    import numpy

    pixels = torch.from_numpy(numpy.array(image))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return resized(pixels[None], shape)[0]


def open_folder(
    folder: Path, shape: TensorShape, *, skip_bad: bool = False, progress: Progress | None = None
) -> Data:
    """A folder of images, with a subfolder for each class.

    It contains `train` and `val` (or `test`), each with a subfolder for each class, or only the
    subfolders: then a fifth of each class, always the same, is kept to evaluate on.
    """
    train = folder / "train"
    val = next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None)
    if not train.is_dir() or val is None:
        classes = _subfolders(folder)
        files = _files(folder, classes)
        return _data(str(folder), _divided(files), classes, shape, skip_bad, progress)
    classes = _subfolders(train)
    held = _subfolders(val)
    extra = sorted(set(held) - set(classes))
    if extra:
        raise CnngraphError(f"{val} has the classes {listing(extra)}, which {train} does not have")
    parts = _files(train, classes), _files(val, classes, among=held)
    return _data(str(folder), parts, classes, shape, skip_bad, progress)


def open_csv(
    path: Path, shape: TensorShape, *, skip_bad: bool = False, progress: Progress | None = None
) -> Data:
    """A CSV file with the columns `path` and `label`, and optionally `split` (`train` or `val`).

    Paths are relative to the file's folder. Labels may be any text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except UnicodeDecodeError:
        raise CnngraphError(f"cannot read {path}: it is not UTF-8 text") from None
    columns = [*rows[0]] if rows else []
    image = next((name for name in _PATH_COLUMNS if name in columns), None)
    label = next((name for name in _LABEL_COLUMNS if name in columns), None)
    if image is None or label is None:
        shown = f"has the columns {listing(columns)}" if rows else "has no rows"
        raise CnngraphError(f"{path} {shown}; a header with `path` and `label` is needed")
    for number, row in enumerate(rows, start=2):
        if not row[image] or not row[label]:
            raise CnngraphError(f"{path}:{number}: the path or the label is missing")
    classes = _in_order({row[label] for row in rows})
    numbers = {name: index for index, name in enumerate(classes)}
    parts: tuple[list[_File], list[_File]] = [], []
    for row in rows:
        held = (row.get("split") or "train").lower() in _VALIDATION
        parts[held].append(_File(path.parent / row[image], numbers[row[label]]))
    divided = parts if parts[1] else _divided(parts[0])
    return _data(str(path), divided, classes, shape, skip_bad, progress)


def _in_order(labels: Iterable[str]) -> list[str]:
    """Class names sorted, as numbers if all are."""
    names = list(labels)
    whole = all(name.lstrip("-").isdigit() for name in names)
    return sorted(names, key=int) if whole else sorted(names)


def _subfolders(folder: Path) -> list[str]:
    found = _in_order(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."
    )
    if not found:
        raise CnngraphError(
            f"{folder} has no subfolders: a folder of images has one for each class, or `train` and"
            " `val` with one for each class"
        )
    return found


def _files(folder: Path, classes: Sequence[str], among: Sequence[str] | None = None) -> list[_File]:
    """The images of the classes, or of those `among` them, each with the number of its class."""
    found: list[_File] = []
    for label, name in enumerate(classes):
        if among is not None and name not in among:
            continue
        images = sorted(
            path for path in (folder / name).rglob("*") if path.suffix.lower() in ENDINGS
        )
        if not images:
            raise CnngraphError(f"the class {name} is empty: {folder / name} has no images")
        found += [_File(path, label) for path in images]
    return found


def _divided(files: Sequence[_File]) -> tuple[list[_File], list[_File]]:
    train, val = split(torch.tensor([file.label for file in files]))
    return [files[index] for index in train], [files[index] for index in val]


def _data(
    name: str,
    parts: tuple[Sequence[_File], Sequence[_File]],
    classes: Sequence[str],
    shape: TensorShape,
    skip_bad: bool,
    progress: Progress | None,
) -> Data:
    total = sum(map(len, parts))
    keeps = total * shape.elements <= MOST_KEPT
    bad: list[str] = []
    opened: list[FileImages | TensorImages] = []
    done = 0
    if not all(parts):
        raise CnngraphError(f"{name} has too few images to keep a fifth of a class to evaluate on")
    for files in parts:
        images: list[Tensor] = []
        good: list[_File] = []
        if not keeps and not skip_bad:
            opened.append(FileImages(files, shape))
            continue
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            read = pool.map(_read, files, [shape] * len(files))
            for file, image in zip(files, read, strict=True):
                done += 1
                if progress is not None:
                    progress(f"reading {name}", done / total)
                if isinstance(image, CnngraphError):
                    if not skip_bad:
                        pool.shutdown(cancel_futures=True)
                        raise image
                    bad.append(str(file.path))
                    continue
                good.append(file)
                if keeps:
                    images.append(image)
        if not good:
            raise CnngraphError(f"{name}: no image can be read")
        if keeps:
            labels = torch.tensor([file.label for file in good])
            names = [str(file.path) for file in good]
            opened.append(TensorImages(torch.stack(images), labels, shape, names))
        else:
            opened.append(FileImages(good, shape))
    return Data(name, opened[0], opened[1], tuple(classes), tuple(bad))


def _read(file: _File, shape: TensorShape) -> Tensor | CnngraphError:
    try:
        return read_image(file.path, shape)
    except CnngraphError as error:
        return error
