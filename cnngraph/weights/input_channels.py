"""Weights of the first convolution for another number of input channels, as in timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from cnngraph.graph import Graph
from cnngraph.lowering.network import Network
from cnngraph.weights.files import Weights
from cnngraph.weights.report import Mismatch, WeightsError


def adapt(
    net: nn.Module,
    wanted: Mapping[str, Tensor],
    source: Weights,
    how: Literal["sum", "repeat"],
) -> Weights:
    """The weights with those of the first convolution adapted to the network's input channels.

    `"sum"` adds the weights of all channels up, for a network with one channel: its output is that
    of the same grey image in all channels. `"repeat"` repeats the weights for several channels,
    scaled so that the sum over channels keeps its magnitude.

    Raises:
        WeightsError: `how` is unknown or does not suit the number of channels.
    """
    if how not in ("sum", "repeat"):
        raise WeightsError(f'in_channels is "sum" or "repeat", not {how!r}')
    differing = {
        key: Mismatch(tuple(source.tensors[key].shape), tuple(value.shape))
        for key, value in wanted.items()
        if key in source.tensors and source.tensors[key].shape != value.shape
    }
    for key in stems(net, differing):
        theirs, ours = differing[key].file[1], differing[key].here[1]
        if (how == "sum") != (ours == 1):
            other = "repeat" if how == "sum" else "sum"
            raise WeightsError(
                f'in_channels="{how}" does not suit `{key}`, which has {ours} input'
                f' {"channel" if ours == 1 else "channels"}: use "{other}"'
            )
        weight = source.tensors[key].double()
        if how == "sum":
            made = weight.sum(1, keepdim=True)
        else:
            repeated = weight.repeat(1, -(-ours // theirs), *(1 for _ in weight.shape[2:]))
            made = repeated[:, :ours] * (theirs / ours)
        note = f"{key}: {theirs} input channels of the file {_DONE[how]} {ours}"
        source = replace(
            source,
            tensors={**source.tensors, key: made.to(source.tensors[key].dtype)},
            notes=(*source.notes, note),
        )
    return source


_DONE = {"sum": "summed to", "repeat": "repeated to"}


def stems(net: nn.Module, mismatched: Mapping[str, Mismatch]) -> list[str]:
    """Weights that differ only in their input channels and are applied to the network's input."""
    stem = _read_input(net.compilation.graph) if isinstance(net, Network) else None
    return [
        key
        for key, (file, here) in mismatched.items()
        if len(file) == len(here) > 2
        and (file[0], file[2:]) == (here[0], here[2:])
        and (stem is None or key.rpartition(".")[0] in stem)
    ]


def _read_input(graph: Graph) -> set[str]:
    """The first layers with weights on every path from the inputs."""
    images = set(graph.inputs)
    stem: set[str] = set()
    for leaf in graph.leaves():
        if images.issuperset(leaf.inputs):
            weighted = leaf.op.parameters(*graph.input_shapes(leaf))
            (stem if weighted else images).add(leaf.path)
    return stem
