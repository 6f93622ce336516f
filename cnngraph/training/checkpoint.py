"""Checkpoints: everything that a run needs to go on, in one file that is written atomically.

A checkpoint is a file of `save_compiled` with one more entry, so `cnngraph.load_compiled` and
`cnngraph.load_weights` read it as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cnngraph.atomic_write import atomic_write
from cnngraph.errors import CnngraphError
from cnngraph.lowering.network import Network
from cnngraph.report.numbers import size
from cnngraph.training.sharding import whole
from cnngraph.weights import torch_files
from cnngraph.weights.compiled import packed, read_packed, unpacked

LAST, BEST = "last.ckpt", "best.ckpt"
_KEY = "training"
_CONTENTS = {
    "data": str, "classes": list, "mean": list, "std": list, "recipe": str, "progress": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """What a file contains.

    Attributes:
        path: the file.
        network: the network, with the weights to use: the averages, if the recipe has `ema`.
        training: the state of the run, as plain data and tensors.
    """

    path: Path
    network: Network
    training: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class."""
        return tuple(self.training["classes"])

    @property
    def data(self) -> str:
        """The source of the data that the network was trained on."""
        return self.training["data"]


def contents_of(network: nn.Module, training: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint contains. If the network is sharded, all processes must call it."""
    contents = packed(network)
    return {**contents, "state_dict": whole(contents["state_dict"]), _KEY: dict(training)}


def save(path: Path, contents: Mapping[str, Any]) -> None:
    """Writes a checkpoint, completely or not at all.

    Raises:
        CnngraphError: the file cannot be written.
    """
    atomic_write(path, lambda file: torch_files.save(contents, file), faults=(RuntimeError,))


def load(path: str | os.PathLike[str], *, allow_code: bool = False) -> Checkpoint:
    """Reads a checkpoint, or the one of a run's folder: its best if there is one.

    `allow_code` allows the spec in it to import classes, as in `cnngraph.load_compiled`.

    Raises:
        CnngraphError: there is none, it is damaged, or it is no checkpoint.
    """
    file = Path(path)
    if file.is_dir():
        found = [file / name for name in (BEST, LAST) if (file / name).is_file()]
        if not found:
            raise CnngraphError(f"{file} contains no checkpoint ({BEST} or {LAST})")
        file = found[0]
    contents = read_packed(file)
    training: Any = contents.get(_KEY)
    if not isinstance(training, dict):
        raise CnngraphError(f"{file} is a compiled network, but no checkpoint of `cnngraph train`")
    for key, kind in _CONTENTS.items():
        if not isinstance(training.get(key), kind):  # pyright: ignore[reportUnknownMemberType]
            raise CnngraphError(f"{file} is damaged: it has no `{key}`")
    return Checkpoint(file, unpacked(contents, file, allow_code=allow_code), training)


def keep_as_best(last: Path) -> None:
    """Makes the best checkpoint the same file as the last one, which is replaced by the next."""
    best = last.with_name(BEST)
    unfinished = last.with_name(f".{BEST}.tmp")
    unfinished.unlink(missing_ok=True)
    try:
        os.link(last, unfinished)
    except OSError:  # a file system without hard links
        shutil.copyfile(last, unfinished)
    os.replace(unfinished, best)


def prepare_folder(folder: Path, resume: bool, bytes_needed: int) -> None:
    """Makes the folder of a run, and removes what an interrupted save left in it.

    Raises:
        CnngraphError: it cannot be written to, already contains a run, or the disk is too full.
    """
    if not resume and (folder / LAST).exists():
        raise CnngraphError(
            f"{folder} already contains a run: `cnngraph train --resume {folder}` continues it,"
            " -o chooses another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in (*folder.glob(f".{LAST}.*.tmp"), folder / f".{BEST}.tmp"):
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise CnngraphError(f"cannot write to {folder}: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CnngraphError(f"cannot write to {folder}: Permission denied")
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise CnngraphError(
            f"the disk of {folder} has {size(free)} free; the run's checkpoints need"
            f" {size(bytes_needed)}"
        )
