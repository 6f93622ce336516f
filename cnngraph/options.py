"""How a spec is to be compiled, apart from its params."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cnngraph.errors import CnngraphError

MODES = ("train", "inference")
"""What a network is compiled for."""

MEMORY = ("fast", "lean")
"""What the fused backend may keep for backward: what is fastest, or as little as costs next to no time."""

_UNITS = {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_BUDGET = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """How a spec is compiled.

    Attributes:
        outputs: names of the values to return; none of them returns the result.
        backend: one of `passes.BACKENDS`.
        mode: one of `MODES`.
        memory: one of `MEMORY`, or a budget such as `6GB`.
        batch_size: of the steps that the budget is for.
        passes: those turned off, each as `-name`.
    """

    outputs: tuple[str, ...] = ()
    backend: str = "fused"
    mode: str = "train"
    memory: str = "fast"
    batch_size: int = 16
    passes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise CnngraphError(f"a batch has at least one image, not {self.batch_size!r}")
        budget_of(self.memory)


def budget_of(memory: str) -> int | None:
    """The bytes of a budget; None for the policies without one. Raises `CnngraphError` for what is neither."""
    if memory in MEMORY:
        return None
    found = _BUDGET.fullmatch(memory.strip()) if isinstance(memory, str) else None
    if found is None or not float(found[1]):
        raise CnngraphError(
            f"there is no memory policy `{memory}`; choose one of {', '.join(MEMORY)}, "
            "or give a budget: 6GB, 512MB, 1.5 GiB"
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])
