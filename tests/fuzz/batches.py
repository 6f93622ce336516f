"""Runs a property over examples that hypothesis draws for a number, and shrinks what fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st


def batch(
    check: Callable[[Any], object], examples: st.SearchStrategy[Any], number: int, count: int
) -> Counter[str]:
    """Checks `count` examples. Returns how many there were; raises the error of the simplest."""
    outcomes: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples)
    def run(example: Any) -> None:
        outcomes[str(check(example) or "passed")] += 1

    run()
    return outcomes
