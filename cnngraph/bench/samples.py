"""Repeated measurements of one quantity."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any


@dataclass(frozen=True)
class Samples:
    """The same quantity measured once per round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    @property
    def min(self) -> float:
        """The smallest of the rounds."""
        return min(self.rounds)

    @property
    def iqr(self) -> float:
        """The interquartile range of the rounds."""
        low, high = self.quartiles
        return high - low

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and upper quartile, interpolated linearly."""
        rounds = self.rounds if len(self.rounds) > 1 else self.rounds * 2  # Python < 3.13 needs two
        low, _, high = quantiles(rounds, method="inclusive")
        return low, high

    def over(self, other: Samples) -> float:
        """The median of the ratios to `other`, round by round.

        A machine that slows down for a while slows both sides of a round.
        """
        return median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Median, minimum, interquartile range, and every round."""
        return {
            "median": self.median,
            "min": self.min,
            "iqr": self.iqr,
            "rounds": list(self.rounds),
        }
