"""What `bench-kernels` measures the rooms with: sizes, memory formats and types. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MEGABYTES = {"cpu": (0.5, 2.0, 8.0, 32.0, 100.0), "cuda": (16.0, 64.0, 256.0, 1000.0)}
MEMORY_FORMATS = ("channels_last", "contiguous_format")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Case:
    room: str
    megabytes: float
    memory_format: str
    dtype: str


def cases(rooms: Iterable[str], megabytes: Sequence[float]) -> list[Case]:
    return [
        Case(room, size, memory_format, dtype)
        for room in rooms
        for dtype in DTYPES
        for memory_format in MEMORY_FORMATS
        for size in megabytes
    ]
