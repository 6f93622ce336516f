"""Features: values inside a network, their names, and the part of a network that computes them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from cnngraph.errors import CnngraphError, did_you_mean
from cnngraph.graph import Graph
from cnngraph.ops.adaptive_pool import AdaptivePool, GlobalPool
from cnngraph.ops.norm import BatchNorm, LayerNorm
from cnngraph.ops.regularization import Dropout, Dropout2d
from cnngraph.ops.shape import Flatten
from cnngraph.shape import ShapeError, TensorShape

_REDUCES_MAP = (AdaptivePool, GlobalPool, Flatten)
_ENLARGEMENT = 960
"""Pixels added to the input to measure how much a map grows; a multiple of the usual strides."""


class FeatureInfo(list[dict[str, Any]]):
    """Features as dicts of `module`, `num_chs`, `reduction` and `shape`.

    `module` is the name for `outputs=`, and `reduction` the number of input pixels per map pixel.
    The methods are those of timm's `FeatureInfo`.
    """

    def module_name(self) -> list[str]:
        """The names."""
        return [item["module"] for item in self]

    def channels(self) -> list[int]:
        """The numbers of channels."""
        return [item["num_chs"] for item in self]

    def reduction(self) -> list[int]:
        """The input pixels per map pixel."""
        return [item["reduction"] for item in self]


def select(graph: Graph, names: Sequence[str]) -> Graph:
    """The part of a network that computes the named values, and returns them.

    Names are those of nodes, blocks and composites. Raises `CnngraphError` for an unknown name, and
    if there are no names.
    """
    if isinstance(names, str) or not names:
        raise CnngraphError('`outputs` is a list of names, such as ["layer2", "layer4"]')
    features = {name: _value_called(graph, name) for name in names}
    needed = set(features.values())
    for node in reversed(graph.nodes):
        if node.path in needed:
            needed.update(node.inputs)
    nodes = tuple(node for node in graph.nodes if node.path in needed)
    scopes = {path: scope for path, scope in graph.scopes.items() if scope.output in needed}
    return replace(
        graph,
        nodes=nodes,
        output=next(reversed(features.values())),
        aux={},
        scopes=scopes,
        features=features,
    )


def _value_called(graph: Graph, name: str) -> str:
    path = graph.scopes[name].output if name in graph.scopes else name
    if path not in graph.by_path:
        known = [*graph.scopes, *graph.by_path]
        hint = "".join(f": {text}" for _, text in did_you_mean(name, known))
        raise CnngraphError(f"`{graph.name}` has no value called `{name}`{hint}")
    if graph.by_path[path].aux:
        raise CnngraphError(
            f"`{name}` belongs to the side head `{graph.by_path[path].aux}`, "
            "which exists in training only"
        )
    return path


def feature_info(graph: Graph) -> FeatureInfo:
    """The features that a network returns; if none were chosen, the last map of each reduction.

    Only maps on the trunk are considered: everything after them depends on them.
    """
    reductions = _reductions(graph)
    chosen = graph.features
    if not chosen:
        names = {scope.output: path for path, scope in graph.scopes.items()}  # the outermost
        trunk = _trunk(graph, until=last_map(graph))
        last = {reductions[path]: path for path in trunk if graph.shape_of(path).spatial}
        chosen = {names.get(path, path): path for path in last.values()}
    return FeatureInfo(
        {
            "module": name,
            "num_chs": graph.shape_of(path).channels,
            "reduction": reductions[path],
            "shape": graph.shape_of(path),
        }
        for name, path in chosen.items()
    )


def _reductions(graph: Graph) -> dict[str, int]:
    """Input pixels per pixel of each map, measured by enlarging the input; 1 for flat values."""
    larger = {
        name: TensorShape((shape.channels, *(size + _ENLARGEMENT for size in shape.spatial)))
        for name, shape in graph.inputs.items()
    }
    reductions: dict[str, int] = {}
    for node in graph.nodes:
        with suppress(ShapeError, KeyError):
            larger[node.path] = node.op.infer(*(larger[path] for path in node.inputs))
        height = node.shape[-1]
        grown = larger[node.path][-1] - height if node.path in larger else 0
        whole = -(-graph.input[-1] // height)
        reductions[node.path] = (
            1 if not node.shape.spatial else round(_ENLARGEMENT / grown) if grown > 0 else whole
        )
    return reductions


def _trunk(graph: Graph, until: str) -> list[str]:
    """The values, in order, on which everything after them depends."""
    nodes = [node for node in graph.nodes if not node.aux]
    last_use = {path: index for index, node in enumerate(nodes) for path in node.inputs}
    trunk: list[str] = []
    reach = max(last_use.get(name, -1) for name in graph.inputs)
    for index, node in enumerate(nodes):
        if reach <= index:
            trunk.append(node.path)
        reach = max(reach, last_use.get(node.path, -1))
        if node.path == until:
            break
    return trunk


def last_map(graph: Graph) -> str:
    """The path of the value that the classifier reads: the last map before pooling and flattening.

    In a network without maps, it is the value that the last layer with weights reads.
    """
    holders = (
        n for n in reversed(graph.nodes) if not n.aux and n.op.parameters(*graph.input_shapes(n))
    )
    classifier = next(holders, None)
    start = path = classifier.inputs[0] if classifier else graph.output
    while path not in graph.inputs:
        node = graph.by_path[path]
        if isinstance(node.op, _REDUCES_MAP) and graph.shape_of(node.inputs[0]).spatial:
            start = path
            break
        path = node.inputs[0]
    while start not in graph.inputs and (before := _before_head(graph, start)):
        start = before
    return start


def _before_head(graph: Graph, path: str) -> str | None:
    """The input of a pooling, of a dropout, or of the pooling before a norm; otherwise None."""
    node = graph.by_path[path]
    if isinstance(node.op, (*_REDUCES_MAP, Dropout, Dropout2d)):
        return node.inputs[0]
    source = graph.by_path.get(node.inputs[0])
    if (
        isinstance(node.op, BatchNorm | LayerNorm)
        and source
        and isinstance(source.op, _REDUCES_MAP)
    ):
        return source.inputs[0]
    return None
