"""Patterns that the user gives, checked, and the network in a wrapper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from cnngraph.graph.patterns import unmatched
from cnngraph.weights.report import WeightsError


def require_match(pattern: str, paths: Iterable[str]) -> None:
    """Raises `WeightsError` if the pattern matches none of the paths."""
    if (problem := unmatched(pattern, list(paths))) is not None:
        raise WeightsError(problem)


def as_patterns(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """The patterns as a tuple; a string is a single pattern."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def unwrapped(net: nn.Module) -> nn.Module:
    """The network in `DataParallel`, `DistributedDataParallel` or `torch.compile`, if wrapped."""
    while True:
        wrapped = isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner: object = getattr(net, "module" if wrapped else "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return net
        net = inner
