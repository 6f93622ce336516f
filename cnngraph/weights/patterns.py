"""Patterns over the paths of a network: which parameters `fc`, `layer4.*` or `*.bn?` stand for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from cnngraph.weights.report import WeightsError, closest


def matches(path: str, pattern: str) -> bool:
    """Whether the pattern names the path or anything that holds it. `*` stands for dots as well."""
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def require_match(pattern: str, paths: Iterable[str]) -> None:
    """Raises `WeightsError` where the pattern matches none of the paths."""
    paths = list(paths)
    if any(matches(path, pattern) for path in paths):
        return
    holders = dict.fromkeys(path.rsplit(".", count)[0] for count in range(1, 9) for path in paths)
    known = [*holders, *paths]
    ending = ".*" if pattern.endswith(".*") else ""
    near = closest(pattern.removesuffix(".*"), known)
    tops = ", ".join(dict.fromkeys(path.split(".")[0] for path in paths))
    help = f"did you mean `{near}{ending}`?" if near else f"there are: {tops}"
    raise WeightsError(f"the pattern `{pattern}` matches nothing; {help}")


def as_patterns(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def unwrapped(net: nn.Module) -> nn.Module:
    """The network itself: `DataParallel`, `DistributedDataParallel` and `torch.compile` put a
    wrapper around it."""
    while True:
        inner = getattr(net, "_orig_mod", None)
        if inner is None and isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = net.module
        if not isinstance(inner, nn.Module):
            return net
        net = inner
