"""The input sizes that a network accepts, in words."""

from __future__ import annotations

from itertools import pairwise

from cnngraph.graph.input_sizes import Failure, InputSizes, runs

MAX_RUNS = 5
MAX_LIMITS = 3
_SHAPES = {1: "length", 2: "square input", 3: "cubic input"}


def describe_sizes(sizes: InputSizes, declared: tuple[int, ...]) -> list[str]:
    """`15x15 and larger (up to 448 tried), output stride 32`, then a line for each binding limit.

    Among the limits on small inputs only the last one binds; `sizes.failures` lists all.

    Args:
        sizes: the sizes to describe.
        declared: the sizes of the spec's own input: height and width, or those of its rank.
    """
    last, rank = sizes.range[1], len(declared)
    if not sizes.valid:
        line = f"no {_SHAPES[rank]} works (up to {last:,} tried)"
    elif sizes.valid == declared[:1]:
        line = f"{_square(declared[0], rank)} only (1 to {last:,} tried)"
    elif len(sizes.runs) == 1 and sizes.valid[-1] == last:
        least = "any" if sizes.valid[0] == 1 else f"{_square(sizes.valid[0], rank)} and larger"
        line = f"{least} (up to {last:,} tried)"
    else:
        line = f"{_listed(sizes.valid)} (up to {last:,} tried)"
    if sizes.stride is not None and sizes.stride > 1:
        line += f", output stride {sizes.stride}"
    return [line, *_limits(sizes)]


def _listed(valid: tuple[int, ...]) -> str:
    """Runs, or `16, 32, 48 and so on, in steps of 16`."""
    steps = {after - before for before, after in pairwise(valid)}
    if len(valid) > 3 and len(steps) == 1 and (step := steps.pop()) > 1:
        return f"{', '.join(map(str, valid[:3]))} and so on, in steps of {step}"
    return _spans(valid)


def _limits(sizes: InputSizes) -> list[str]:
    least = sizes.least or 1
    binding = [item for item in sizes.failures if max(item.sizes) >= least - 1]
    lines = [_limit(item, least) for item in binding[:MAX_LIMITS]]
    more = len(binding) - MAX_LIMITS
    return lines if more <= 0 else [*lines, f"and {more} more such limits"]


def _limit(failure: Failure, least: int) -> str:
    which = f"below {least}" if max(failure.sizes) < least else f"not {_spans(failure.sizes)}"
    return f"{which}: {failure.path}: {failure.reason}"


def _spans(sizes: tuple[int, ...]) -> str:
    found = list(runs(sizes))
    words = [
        str(first) if first == last else f"{first} to {last}" for first, last in found[:MAX_RUNS]
    ]
    more = len(found) > MAX_RUNS
    return ", ".join(words) + (f" and so on ({len(sizes)} in all)" if more else "")


def _square(size: int, rank: int) -> str:
    return "x".join([str(size)] * rank)
