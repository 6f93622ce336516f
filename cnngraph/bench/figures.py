"""Several measurements of one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """The same thing measured once a round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def min(self) -> float:
        return min(self.rounds)

    @property
    def iqr(self) -> float:
        """How far the middle half of the rounds spreads."""
        low, high = self.quartiles
        return high - low

    @property
    def quartiles(self) -> tuple[float, float]:
        return _quantile(self.rounds, 0.25), _quantile(self.rounds, 0.75)

    def over(self, other: Figure) -> float:
        """How many times `other` this is: the median of the rounds' ratios, for rounds that lie side by side."""
        return median(own / of for own, of in zip(self.rounds, other.rounds, strict=True))

    def to_json(self) -> dict[str, Any]:
        return {"median": self.median, "min": self.min, "iqr": self.iqr, "rounds": list(self.rounds)}


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
