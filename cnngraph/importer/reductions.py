"""Means and largest values over axes, as pools and reductions of channels."""

from __future__ import annotations

from typing import Any

import torch

from cnngraph.importer.arrange import reshaped
from cnngraph.importer.rules import apply, ranked, rule
from cnngraph.importer.steps import new_op
from cnngraph.importer.values import Recorder, Value, permuted
from cnngraph.ops import Op
from cnngraph.ops.merge import Add


@rule(torch.mean, "mean")
def mean(record: Recorder, input: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    return _reduce(record, input, dim, keepdim, "mean")


@rule(torch.amax, "amax")
def amax(record: Recorder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return _reduce(record, input, dim, keepdim, "amax")


def _reduce(record: Recorder, input: Value, dim: Any, keepdim: bool, what: str) -> Value:
    if input.layout in ("grouped", "swapped"):
        input = record.plain(input)
    count = len(input.shape)
    dims = {dim % count for dim in (dim if isinstance(dim, tuple | list) else [dim])}
    which = "avg" if what == "mean" else "max"
    spatial = input.spatial_axes
    if dims == {input.channel_axis} and spatial:
        op: Op = new_op("channel_mean" if which == "avg" else "channel_max")
    elif dims == set(spatial) and spatial:
        op = new_op(ranked(f"global_{which}_pool", input))
    elif dims < set(spatial):
        size = tuple(1 if axis in dims else None for axis in spatial)
        op = new_op(ranked(f"adaptive_{which}_pool", input), output_size=size)
    else:
        raise record.unsupported(f"`{what}` over dimensions {sorted(dims)}")
    reduced = record.step(op, input.own)
    if keepdim:
        order = (0, *range(2, count), 1) if input.layout == "last" else tuple(range(count))
        return permuted(reduced, order) or reduced
    kept = tuple(size for axis, size in enumerate(input.shape) if axis not in dims)
    return reshaped(record, reduced, kept)


@rule(torch.sum, "sum")
def total(record: Recorder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """A sum over the axis of groups: the parts of the channels, added."""
    dims = [dim] if isinstance(dim, int) else dim
    if input.layout != "grouped" or dims != [1] or keepdim:
        raise record.unsupported(f"`sum` over dimension {dim}")
    groups = input.shape[1]
    parts = (
        apply(record, "chunk", input.own, chunks=groups, index=index) for index in range(groups)
    )
    return record.step(Add(), *parts)
