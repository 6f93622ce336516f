"""Files by `torch.save`, and the errors of files that cannot be read.

Reading one runs no code, and takes time and memory in proportion to the size of the file: see
`unpickle`. The sizes of everything in the file are compared with the size of the file before
anything is read.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import stat
import struct
import sys
import zipfile
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from cnngraph.atomic_write import one_line, printable
from cnngraph.errors import CnngraphError
from cnngraph.weights.unpickle import MOST_OPCODES, StorageType, UnsafeGlobal, unpickle

ZIP_START = b"PK\x03\x04"
_FOLDER = 0x10
"""The attribute bit that marks a zip entry as a folder."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

PLAIN_OBJECTS = frozenset(
    {
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "numpy.dtype",
        *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
        *(
            f"numpy.dtypes.{kind}{bits}DType"
            for kind in ("Int", "UInt", "Float")
            for bits in (8, 16, 32, 64)
        ),
        "numpy.dtypes.BoolDType",
    }
)
"""What training scripts store beside weights: arguments, paths, numbers."""

Fault = Callable[[str], CnngraphError]


class Damaged(Exception):
    """A file whose contents are not what its format requires; the text says how."""


@contextmanager
def readable(path: str | os.PathLike[str], fault: Fault, trust: str = "") -> Generator[None]:
    """Turns all errors of a file that is missing, damaged or unsafe into `fault`.

    `trust` is added to the message if the file contains objects that could run code.
    """
    name = printable(os.fspath(path))
    try:
        yield
    except CnngraphError:
        raise
    except (zipfile.BadZipFile, EOFError) as error:
        if "CRC-32" in str(error):
            raise fault(f"{name} is damaged: {one_line(error)}") from None
        raise fault(f"{name} is damaged: it is truncated") from None
    except FileNotFoundError:
        raise fault(f"cannot read {name}: it does not exist") from None
    except IsADirectoryError:
        raise fault(f"cannot read {name}: it is a folder") from None
    except OSError as error:
        raise fault(f"cannot read {name}: {error.strerror or error}") from None
    except UnsafeGlobal as error:
        raise fault(
            f"{name} is rejected: it contains {printable(str(error))}, and reading it could run"
            f" code{trust}"
        ) from None
    except Exception as error:  # damaged files make zip and pickle raise anything
        raise fault(f"{name} is damaged: {printable(one_line(error))}") from None


def open_file(path: str | os.PathLike[str], fault: Fault) -> IO[bytes]:
    """Opens an ordinary file; a pipe or a device could block or never end.

    Raises:
        CnngraphError: made by `fault`; it is not an ordinary file.
        OSError, ValueError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError
    raise fault(f"cannot read {printable(os.fspath(path))}: it is not an ordinary file")


def save(contents: object, path: Path) -> None:
    """Writes tensors and plain data to a file by `torch.save`.

    Raises:
        OSError: the file cannot be written, because the disk is full, for example.
    """
    with path.open("wb") as file:
        try:
            torch.save(contents, file)
        except RuntimeError as error:  # of torch's zip writer, which does not say why
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(file: IO[bytes], ignored: Collection[str] = ()) -> Any:
    """The contents of a file by `torch.save`: tensors and plain data.

    Objects of the classes `ignored` are replaced by `Ignored`, tensors of unusual kinds by
    `RefusedTensor`.

    Raises:
        Exception: the file is damaged or unsafe. Use `readable`.
    """
    file.seek(0)
    is_zip = file.read(len(ZIP_START)) == ZIP_START
    file.seek(0)
    return _load_zip(file, ignored) if is_zip else _load_legacy(file, ignored)


def _load_zip(file: IO[bytes], ignored: Collection[str]) -> Any:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]  # below the name of the archive
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise Damaged(f"{entry.filename} is compressed")
            if entry.external_attr & _FOLDER or name.endswith("/"):
                raise Damaged(f"{entry.filename} is marked as a folder")
            if name in entries:
                raise Damaged(f"{entry.filename} is there twice")
            entries[name] = entry
        if sum(entry.file_size for entry in entries.values()) > size:
            raise Damaged("its entries overlap")
        for entry in entries.values():
            if not entry.filename.partition("/")[2].startswith("data/"):
                archive.read(entry)  # checks it, used or not
        if "data.pkl" not in entries:
            raise Damaged("it has no data.pkl")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != sys.byteorder.encode():
            raise Damaged("it was written on a machine with another byte order")
        read: set[str] = set()

        def storage(kind: StorageType, key: str, count: int) -> Tensor:
            entry = entries[f"data/{key}"]
            values = _allocate(kind, count, entry.file_size, entry.file_size)
            with archive.open(entry) as source:
                _fill(values, source)
                if source.read(1):  # also compares the checksum
                    raise Damaged(f"{entry.filename} is larger than its tensor")
            read.add(f"data/{key}")
            return values

        contents = unpickle(archive.read(entries["data.pkl"]), storage, ignored)
        for name in entries.keys() - read:
            archive.read(entries[name])
        return contents


def _load_legacy(file: IO[bytes], ignored: Collection[str]) -> Any:
    """The format of torch before 1.6: pickles, then the numbers of all storages."""
    left = os.fstat(file.fileno()).st_size

    def no_storage(kind: StorageType, key: str, count: int) -> Tensor:
        raise Damaged("its header contains tensors")

    header = [unpickle(_pickle(file), no_storage) for _ in range(2)]
    if header != [_LEGACY_MAGIC, _LEGACY_PROTOCOL]:
        # A pickle by other means: unsafe if it contains classes, else no weights.
        raise Damaged("it was not written by torch.save")
    if not unpickle(_pickle(file), no_storage).get("little_endian", True):
        raise Damaged("it was written on a machine with another byte order")
    storages: dict[str, Tensor] = {}

    def storage(kind: StorageType, key: str, count: int) -> Tensor:
        nonlocal left
        values = _allocate(kind, count, 0, left)
        left -= values.nbytes
        storages[key] = values
        return values

    contents = unpickle(_pickle(file), storage, ignored)
    for key in unpickle(_pickle(file), no_storage):
        if key not in storages:
            raise Damaged("it has no tensor for some of its values")
        values = storages.pop(key)
        (count,) = struct.unpack("<q", file.read(8))
        if count != values.numel():
            raise Damaged("its values have another size than its tensors")
        _fill(values, file)
    if storages:
        raise Damaged("some of its tensors have no values")
    return contents


def _pickle(file: IO[bytes]) -> bytes:
    """The next pickle of a file."""
    start = file.tell()
    for count, _ in enumerate(pickletools.genops(file)):
        if count > MOST_OPCODES:
            raise pickle.UnpicklingError(f"its pickle has more than {MOST_OPCODES:,} steps")
    end = file.tell()
    file.seek(start)
    return file.read(end - start)


def _allocate(kind: StorageType, count: int, least: int, most: int) -> Tensor:
    """A flat tensor for the numbers of a storage, which must have from `least` to `most` bytes."""
    assert kind.dtype is not None  # others are not loaded
    if count < 0 or not least <= count * kind.dtype.itemsize <= most:
        raise Damaged("the size of a tensor differs from that of its values")
    return torch.empty(count, dtype=kind.dtype)


def _fill(values: Tensor, source: IO[bytes]) -> None:
    """Reads all numbers of a flat tensor. Raises EOFError if there are fewer."""
    target = memoryview(cast("Any", values.view(torch.uint8).numpy()))
    while target:
        count = source.readinto(target)  # pyright: ignore[reportAttributeAccessIssue,reportUnknownVariableType,reportUnknownMemberType]
        if not count:
            raise EOFError
        target = target[count:]
    if values.dtype is torch.bool:
        values.copy_(values.view(torch.uint8) != 0)
