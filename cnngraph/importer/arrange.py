"""Calls that arrange the values of tensors: shapes, parts, concatenations, padding and resizing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch.nn import functional as F

from cnngraph.importer.rules import apply, result_shape, rule, sizes
from cnngraph.importer.steps import new_op
from cnngraph.importer.values import Recorder, Value, Weight, permuted
from cnngraph.ops.merge import Concat


@rule(
    torch.flatten, "flatten", "reshape", "view", torch.reshape, "squeeze", torch.squeeze,
    "unsqueeze", torch.unsqueeze, "unflatten", torch.unflatten,
)  # fmt: skip
def reshape(record: Recorder, input: Any, *_: Any, **__: Any) -> Any:
    """Any call that changes only the shape: what it does follows from both shapes."""
    if isinstance(input, Weight):
        return replace(input, tensor=record.node.meta["value"])
    return reshaped(record, input, result_shape(record))


def reshaped(record: Recorder, input: Value, shape: Sequence[int]) -> Value:
    """A value as a tensor of another shape."""
    source = [*input.shape]
    wanted = [*shape]
    if wanted == source:
        return input
    if wanted[:1] != source[:1]:
        raise record.unsupported(f"a reshape of {source} to {wanted}, across the batch")
    divided = len(wanted) == len(source) + 1 and wanted[3:] == source[2:]
    if input.layout == "plain" and len(source) > 2 and divided:
        return Value(input.name, tuple(wanted), "grouped")
    if input.layout in ("grouped", "swapped") and wanted == [*input.own.shape]:
        if input.layout == "grouped":
            return input.own
        return apply(record, "channel_shuffle", input.own, groups=source[2])
    if input.layout == "last" and prod(source[1:-1]) == 1:
        return reshaped(record, input.own, wanted)
    return _flattened_and_divided(record, record.plain(input), wanted)


def _flattened_and_divided(record: Recorder, input: Value, shape: list[int]) -> Value:
    """A plain value in another shape: `flatten` what differs, and `unflatten` it."""
    own = [*input.shape]
    start = 1
    while start < min(len(own), len(shape)) - 1 and own[start] == shape[start]:
        start += 1
    kept = len(own) - start - 1  # axes at the end, if one axis before them is divided
    if len(shape) < start + 1 + kept or own[start + 1 :] != shape[len(shape) - kept :]:
        fields = {"start_dim": start} if start > 1 else {}
        input = apply(record, "flatten", input, **fields)
        kept = 0
    divided = tuple(shape[start : len(shape) - kept])
    if len(divided) > 1:
        fields = {"dim": start} if start > 1 else {}
        input = apply(record, "unflatten", input, unflattened_size=divided, **fields)
    return input


@rule("permute", torch.permute)
def permute(record: Recorder, input: Value, *dims: Any) -> Value:
    order = tuple(dims[0]) if isinstance(dims[0], tuple | list) else dims
    order = tuple(dim % len(input.shape) for dim in order)
    found = permuted(input, order)
    if found is not None:
        return found
    if order[0] != 0:
        raise record.unsupported(f"a permutation {order} that moves the batch")
    return apply(record, "permute", record.plain(input), dims=order)


@rule("transpose", torch.transpose, torch.swapaxes, "swapaxes")
def transpose(record: Recorder, input: Value, dim0: int, dim1: int) -> Value:
    order = list(range(len(input.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(record, input, order)


@rule("movedim", torch.movedim)
def movedim(record: Recorder, input: Value, source: int, destination: int) -> Value:
    count = len(input.shape)
    order = [dim for dim in range(count) if dim != source % count]
    order.insert(destination % count, source % count)
    return permute(record, input, order)


@rule(
    "contiguous", "clone", "detach", "to", "float", "type_as", torch.clone, "requires_grad_",
    "alias", torch.detach, "data",
)  # fmt: skip
def unchanged(record: Recorder, input: Any, *_: Any, **__: Any) -> Any:
    return input


@rule("expand_as", "expand", torch.broadcast_to, "broadcast_to")
def expand(record: Recorder, input: Any, *_: Any, **__: Any) -> Any:
    """The value itself: a product repeats it where that is needed."""
    if isinstance(input, Value) and len(input.shape) != len(result_shape(record)):
        raise record.unsupported("`expand` to more dimensions")
    return input


@rule(torch.chunk, "chunk", torch.tensor_split, "tensor_split")
def chunk(record: Recorder, input: Value, chunks: Any, dim: int = 0) -> tuple[Value, ...]:
    return _parts(record, input, dim)


@rule(torch.split, "split", "split_with_sizes")
def split(record: Recorder, input: Value, sizes: Any, dim: int = 0) -> tuple[Value, ...]:
    return _parts(record, input, dim)


def _parts(record: Recorder, input: Value, dim: int) -> tuple[Value, ...]:
    found = [part.shape[dim] for part in record.node.meta["value"]]
    if dim % len(input.shape) != input.channel_axis or input.layout in ("grouped", "swapped"):
        raise record.unsupported(f"a split of dimension {dim} into {found}")
    if len(found) == 1:
        return (input,)
    used = _used_items(record)
    parts: list[Any] = []
    for index in range(len(found)):
        if used is not None and index not in used:
            parts.append(None)
        elif len(set(found)) == 1:
            parts.append(apply(record, "chunk", input, chunks=len(found), index=index))
        else:
            parts.append(apply(record, "split", input, split_size=tuple(found), index=index))
    return tuple(parts)


def _used_items(record: Recorder) -> set[int] | None:
    """The indices of the results that the module uses; None if not all are known."""
    users = [user for user in record.node.users if user.users]
    if any(user.target is not operator.getitem for user in users):
        return None
    indices: list[Any] = [user.args[1] for user in users]
    count = len(record.node.meta["value"])
    return {index % count for index in indices} if all(type(i) is int for i in indices) else None


@rule(torch.cat, torch.concat, torch.concatenate)
def concat(record: Recorder, tensors: Sequence[Value], dim: int = 0, **names: int) -> Value:
    dim = names.get("axis", dim)
    if len({value.layout for value in tensors}) > 1:
        tensors = [record.plain(value) for value in tensors]
    if any(value.layout in ("grouped", "swapped") for value in tensors):
        raise record.unsupported("a concatenation of groups of channels")
    if dim % len(tensors[0].shape) != tensors[0].channel_axis:
        raise record.unsupported(f"a concatenation on dimension {dim}")
    return tensors[0] if len(tensors) == 1 else record.step(Concat(), *tensors)


@rule(torch.stack)
def stack(record: Recorder, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Maps in a new axis before the channels: groups of channels of their concatenation."""
    plain = [record.plain(value) for value in tensors]
    if dim != 1 or plain[0].rank == 0:
        raise record.unsupported(f"`stack` on dimension {dim}")
    return reshaped(record, record.step(Concat(), *plain), result_shape(record))


@rule(operator.getitem)
def item(record: Recorder, values: Any, index: Any) -> Any:
    """An item of several results, or a part of a tensor."""
    if isinstance(values, tuple | list):
        return values[index]
    if isinstance(values, Weight):
        raise record.unsupported(f"a part of the parameter `{values.path}`")
    items = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        given = sum(item is not None for item in items) - 1
        items[at : at + 1] = [slice(None)] * (len(values.shape) - given)
    axis = 0
    for wanted in items:
        if wanted is None:
            continue
        if wanted != slice(None):
            values = _part(record, values, axis, wanted)
        axis += 1
    return reshaped(record, values, result_shape(record))


@rule(torch.select, "select")
def select(record: Recorder, input: Value, dim: int, index: int) -> Value:
    part = _part(record, input, dim % len(input.shape), index)
    return reshaped(record, part, result_shape(record))


def _part(record: Recorder, input: Value, axis: int, wanted: Any) -> Value:
    if axis == input.channel_axis and input.layout not in ("grouped", "swapped"):
        if isinstance(wanted, int):
            wanted = slice(wanted, wanted + 1 or None)
        if wanted.step in (None, 1):
            whole = (wanted.start or 0) == 0 and (wanted.stop or input.channels) >= input.channels
            if whole:
                return input
            fields = {"start": wanted.start or 0, "end": wanted.stop}
            return apply(record, "slice", input, **fields)
    if input.layout == "grouped" and axis == 1 and isinstance(wanted, int):
        groups = input.shape[1]
        return apply(record, "chunk", input.own, chunks=groups, index=wanted % groups)
    raise record.unsupported(f"indexing dimension {axis} with {wanted}")


@rule(F.pad, torch.nn.functional.pad)
def pad(
    record: Recorder,
    input: Value,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Value:
    if not any(pad):
        return input
    input = record.plain(input)
    sides = (*pad, 0, 0, 0, 0)[:4]
    if any(pad[4:]) or input.rank != 2:
        raise record.unsupported(f"padding {tuple(pad)} of {input.spec_shape}")
    return apply(record, "pad", input, padding=sides, mode=mode, value=value or 0.0)


@rule(F.interpolate)
def interpolate(
    record: Recorder,
    input: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    if antialias or recompute_scale_factor:
        raise record.unsupported("`interpolate` with antialias or recompute_scale_factor")
    input = record.plain(input)
    factor = sizes(scale_factor, 2)
    like = record.map_of(size)
    op = new_op(
        "upsample",
        like=None if like is None else like.name,
        size=None if like is not None else sizes(size, 2),
        scale_factor=None if factor is None else tuple(map(float, factor)),
        mode=mode,
        align_corners=align_corners if mode in ("bilinear", "bicubic") else None,
    )
    return record.step(op, input) if like is None else record.step(op, input, like)


@rule(F.pixel_shuffle, torch.pixel_shuffle)
def pixel_shuffle(record: Recorder, input: Value, upscale_factor: int) -> Value:
    return apply(record, "pixel_shuffle", record.plain(input), upscale_factor=upscale_factor)


@rule(F.pixel_unshuffle, torch.pixel_unshuffle)
def pixel_unshuffle(record: Recorder, input: Value, downscale_factor: int) -> Value:
    return apply(record, "pixel_unshuffle", record.plain(input), downscale_factor=downscale_factor)


@rule(torch.channel_shuffle)
def channel_shuffle(record: Recorder, input: Value, groups: int) -> Value:
    return apply(record, "channel_shuffle", record.plain(input), groups=groups)
