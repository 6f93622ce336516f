"""A forward and a backward pass, with the statistics of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph.graph import Graph, Node
from cnngraph.lowering.network import Network
from cnngraph.shape import TensorShape

RECTIFIERS = ("relu", "relu6", "hardswish", "hardsigmoid")
"""Activations whose result and gradient are exactly zero for some inputs: their units can die."""


@dataclass(frozen=True)
class LayerStatistics:
    """What a batch does in one layer.

    Attributes:
        weighted: whether it is a convolution, linear layer or other product with weights.
        mean, std: of all values of its result.
        dead: for a rectifier, the share of its units (channels of a map, entries of a vector) that
            are zero for every image and position; otherwise None.
        gradient: the norm of the loss's gradient by its result; None if there is none.
        relative: the norm of the loss's gradient by its weight, divided by the norm of the weight;
            None if it has none, or if the weight is zero.
    """

    path: str
    kind: str
    shape: TensorShape
    weighted: bool
    mean: float
    std: float
    dead: float | None
    gradient: float | None
    relative: float | None


@dataclass(frozen=True)
class Measurement:
    """A batch that went through a network and back.

    Attributes:
        network: the name of the network.
        data: what the batch consists of.
        weights: where the weights come from.
        batch_size: images in the batch.
        loss: cross entropy of a classifier; of other networks, the mean square of the results.
        layers: the layers with modules, in the order in which they are computed.
        kinds: all ops of the network.
    """

    network: str
    data: str
    weights: str
    batch_size: int
    loss: float
    layers: tuple[LayerStatistics, ...]
    kinds: frozenset[str]


class _Watch:
    """Hooks on the modules of a network that note the statistics of their first call."""

    def __init__(self, net: nn.Module, graph: Graph) -> None:
        self.modules = dict(net.named_modules())
        self.nodes = [node for node in graph.nodes if node.path in self.modules]
        self.forward: dict[str, dict[str, float | None]] = {}
        self.gradients: dict[str, float] = {}
        self._handles = [
            self.modules[node.path].register_forward_hook(self._hook(node)) for node in self.nodes
        ]

    def _hook(self, node: Node) -> Any:
        def note(_: nn.Module, inputs: Any, result: Any) -> None:
            if node.path in self.forward or not isinstance(result, Tensor):
                return
            values = result.detach()
            std, mean = torch.std_mean(values.float(), correction=0)
            dead = None
            if node.op.kind in RECTIFIERS:
                units = values.transpose(0, 1).flatten(1)
                dead = float((units == 0).all(1).float().mean())
            self.forward[node.path] = {"mean": float(mean), "std": float(std), "dead": dead}
            if result.requires_grad:
                result.register_hook(note_gradient)

        def note_gradient(gradient: Tensor) -> None:
            self.gradients[node.path] = _norm(gradient)

        return note

    def end(self) -> None:
        for handle in self._handles:
            handle.remove()

    def layer(self, graph: Graph, node: Node) -> LayerStatistics:
        weight = getattr(self.modules[node.path], "weight", None)
        relative = None
        if isinstance(weight, Tensor) and weight.grad is not None and weight.detach().any():
            relative = _norm(weight.grad) / _norm(weight)
        found: Any = self.forward[node.path]
        return LayerStatistics(
            path=node.path,
            kind=node.op.kind,
            shape=node.shape,
            weighted=bool(node.op.macs(node.shape, *graph.input_shapes(node))),
            gradient=self.gradients.get(node.path),
            relative=relative,
            **found,
        )


def layers_of_step(
    net: Network, images: Sequence[Tensor], labels: Tensor | None
) -> tuple[float, tuple[LayerStatistics, ...]]:
    """The loss of a batch, and the statistics of each layer.

    Args:
        net: the network, of the eager backend; it is put in training mode.
        images: one tensor for each input of the network.
        labels: the class of each image; None if the network is no classifier.
    """
    graph = net.compilation.graph
    watch = _Watch(net.train(), graph)
    try:
        result = net(*images)
        results = [*result.values()] if isinstance(result, dict) else [result]
        loss = torch.stack([_loss(value, labels) for value in results]).sum()
        loss.backward()
    finally:
        watch.end()
    layers = [watch.layer(graph, node) for node in watch.nodes if node.path in watch.forward]
    return float(loss.detach()), tuple(layers)


def _loss(result: Tensor, labels: Tensor | None) -> Tensor:
    return result.square().mean() if labels is None else F.cross_entropy(result, labels)


def _norm(values: Tensor) -> float:
    """The Euclidean norm, in float64: in float32 the square of a small gradient is zero."""
    return float(values.detach().double().norm())
