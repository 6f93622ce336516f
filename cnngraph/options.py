"""How a spec is compiled, apart from its params."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from cnngraph.errors import CnngraphError

Backend = Literal["fused", "eager"]
"""`fused` uses the fused operators; `eager`, plain torch.nn, is the reference."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)

Strategy = Literal["ddp", "fsdp"]
"""With `ddp` each process of a run has all weights; with `fsdp`, a part of them."""

MemoryPolicy = Literal["fast", "lean"]
"""What the fused backend keeps for backward: `fast` keeps all, `lean` recomputes activations.

A budget such as `6GB` may be given instead.
"""
MEMORY_POLICIES: tuple[MemoryPolicy, ...] = get_args(MemoryPolicy)

_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_UNITS = _DECIMAL | _BINARY
_SIZE = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """How a spec is compiled.

    Attributes:
        outputs: names of the values to return; if empty, the network returns its result.
        backend: one of `BACKENDS`.
        memory: one of `MEMORY_POLICIES`, or a budget such as `6GB`.
        batch_size: images per training step that the budget assumes.
        disable_passes: names of passes to leave out.

    Raises `CnngraphError` for an invalid batch size or memory; `passes_of` checks the rest.
    """

    outputs: tuple[str, ...] = ()
    backend: str = "fused"
    memory: str = "fast"
    batch_size: int = 16
    disable_passes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise CnngraphError(f"a batch has at least one image, not {self.batch_size!r}")
        budget_of(self.memory)


def budget_of(memory: str) -> int | None:
    """The bytes of a budget such as `6GB`; None for one of `MEMORY_POLICIES`.

    Raises `CnngraphError` if it is neither.
    """
    if memory in MEMORY_POLICIES:
        return None
    size = size_of(str(memory))
    if not size:
        raise CnngraphError(
            f"there is no memory policy `{memory}`; choose one of {', '.join(MEMORY_POLICIES)}, "
            "or give a budget: 6GB, 512MB, 1.5 GiB"
        )
    return size


def size_of(text: str) -> int | None:
    """The bytes of a size such as `6GB`, None if it is none."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[found[2].upper()]) if found else None
