"""Fine-tuning: weights of another run or a published file, and parts that are frozen for a time."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.lowering.network import Network
from cnngraph.training.recipe import Recipe
from cnngraph.weights import WeightsError, freeze, load_weights, unfreeze


def load_pretrained(net: Network, weights: str | Path) -> str:
    """Loads weights, apart from those of the classifier if it has another number of classes.

    The first convolution is adapted to another number of input channels, as in timm.

    Returns:
        What was loaded, for the user.

    Raises:
        WeightsError: the file cannot be read, or other weights do not fit.
    """
    channels = "sum" if net.compilation.graph.input.channels == 1 else "repeat"
    try:
        return str(load_weights(net, weights))
    except WeightsError as error:
        report = error.report
        if report is None or not report.mismatched:
            raise
    wrong = {key.rpartition(".")[0] for key in report.mismatched}
    head = sorted(wrong & set(_classifier(net)))
    adapts = "in_channels" if wrong - set(head) else None
    return str(load_weights(net, weights, skip=head, in_channels=channels if adapts else None))


def _classifier(net: Network) -> list[str]:
    """The layers whose weights depend on the number of classes."""
    spec, params = net.compilation.spec, dict(net.compilation.params)
    if "num_classes" not in spec.params:
        return []
    graph = net.compilation.graph
    classes = graph.by_path[graph.output].shape.channels
    other = elaborate_or_raise(spec, {**params, "num_classes": classes + 1})
    return [
        leaf.path
        for leaf in graph.leaves()
        if leaf.path in other.by_path and _weights(graph, leaf.path) != _weights(other, leaf.path)
    ]


def _weights(graph: Graph, path: str) -> object:
    node = graph.by_path[path]
    return node.op.parameters(*graph.input_shapes(node))


def require_trainable(net: nn.Module, recipe: Recipe) -> None:
    """Raises unless all patterns match, and every epoch trains a part of the network.

    Raises:
        WeightsError: a pattern matches nothing.
        CnngraphError: an epoch trains nothing.
    """
    before = {parameter: parameter.requires_grad for parameter in net.parameters()}
    for epoch in sorted({0, *recipe.unfreeze}):
        apply_freezing(net, recipe, epoch)
        if epoch < recipe.epochs and not any(value.requires_grad for value in net.parameters()):
            raise CnngraphError(
                f"epoch {epoch + 1} trains nothing: every parameter is frozen; leave some out of"
                " `freeze`, or `unfreeze` some in epoch 0"
            )
    for parameter, trained in before.items():
        parameter.requires_grad_(trained)


def apply_freezing(net: nn.Module, recipe: Recipe, epoch: int) -> None:
    """Freezes what the recipe keeps frozen in an epoch, counted from 0, and nothing else of it.

    Raises:
        WeightsError: a pattern matches nothing.
    """
    if recipe.freeze:
        freeze(net, *recipe.freeze)
    for start, patterns in sorted(recipe.unfreeze.items()):
        if start <= epoch:
            unfreeze(net, *patterns)
