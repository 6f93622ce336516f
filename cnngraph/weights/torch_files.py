"""Files by `torch.save`, read without running code, and the errors of files that cannot be read."""

from __future__ import annotations

import argparse
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from cnngraph.atomic_write import one_line
from cnngraph.errors import CnngraphError

ZIP_START = b"PK\x03\x04"
_FOLDER = 0x10
"""The attribute bit that marks a zip entry as a folder."""

_scalar = numpy.float64(0).__reduce__()[0]

PLAIN_OBJECTS: tuple[Any, ...] = (
    argparse.Namespace,
    pathlib.PosixPath,
    numpy.dtype,
    *(type(numpy.dtype(code)) for code in "?bhilBHILefd"),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)
"""What training scripts store beside weights: arguments, paths, numbers. None of it runs code."""


@contextmanager
def readable(
    path: str | os.PathLike[str], fault: Callable[[str], CnngraphError], trust: str = ""
) -> Generator[None]:
    """Turns all errors of a file that is missing, damaged or unsafe into `fault`.

    `trust` is added to the message if the file contains objects that could run code.
    """
    name = os.fspath(path)
    try:
        yield
    except CnngraphError:
        raise
    except (zipfile.BadZipFile, EOFError):
        raise fault(f"{name} is damaged: it is truncated") from None
    except FileNotFoundError:
        raise fault(f"cannot read {name}: it does not exist") from None
    except IsADirectoryError:
        raise fault(f"cannot read {name}: it is a folder") from None
    except OSError as error:
        raise fault(f"cannot read {name}: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise fault(f"{name} is damaged: torch.load cannot read it") from None
        raise fault(
            f"{name} is rejected: it contains {found[1]}, and reading it could run code{trust}"
        ) from None
    except Exception as error:  # damaged files make zip and pickle raise anything
        raise fault(f"{name} is damaged: {one_line(error)}") from None


def load(
    path: str | os.PathLike[str],
    fault: Callable[[str], CnngraphError],
    allowed: tuple[Any, ...] = (),
) -> Any:
    """The contents of a file by `torch.save`: tensors, plain data and objects of `allowed` classes.

    Raises:
        CnngraphError: made by `fault`; a zip entry is damaged. Other errors: see `readable`.
    """
    with open(path, "rb") as file:
        is_zip = file.read(len(ZIP_START)) == ZIP_START
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            folders = [file.filename for file in archive.infolist() if file.external_attr & _FOLDER]
        if broken is not None:
            raise fault(f"{os.fspath(path)} is damaged: the checksum of {broken} is wrong")
        if folders:  # torch would read it as an empty entry
            raise fault(f"{os.fspath(path)} is damaged: {folders[0]} is marked as a folder")
    with torch.serialization.safe_globals(list(allowed)):
        return torch.load(path, map_location="cpu", weights_only=True)
