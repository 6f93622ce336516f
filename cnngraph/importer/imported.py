"""`from_module`: the flow from an `nn.Module` to a spec with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph.compiler import compile
from cnngraph.errors import CnngraphError
from cnngraph.importer.blocks import snake_case
from cnngraph.importer.compose import compose
from cnngraph.importer.concats import normalize_concats
from cnngraph.importer.convert import convert, is_leaf
from cnngraph.importer.source import Source
from cnngraph.importer.steps import Steps
from cnngraph.importer.trace import trace
from cnngraph.importer.tree import tree_of
from cnngraph.importer.write import spec_text
from cnngraph.lowering.network import Network
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Imported:
    """A module as a spec.

    Attributes:
        spec: the text of the spec.
        state_dict: the module's weights, under the keys of the spec's network.
    """

    spec: str
    state_dict: Mapping[str, Tensor]

    def compile(self, **options: Any) -> Network:
        """The network with the module's weights; `options` are those of `cnngraph.compile`."""
        network = compile(self.spec, **options)
        network.load_state_dict(dict(self.state_dict))
        return network


def from_module(
    module: nn.Module, input: Tensor | Sequence[int], *, name: str | None = None
) -> Imported:
    """Writes the spec of an existing module.

    The module is traced with `torch.fx`. Submodules of the same structure become blocks, and
    siblings of the same structure a `repeat`. The names of modules stay, so that the weights fit.

    Args:
        module: a convolutional network with one input.
        input: its input `(N, C, H, W)`, or the shape of one image without the batch.
        name: the name of the network; by default that of the module's class.

    Raises:
        CnngraphError: the module cannot be traced, or computes something that the language cannot
            say; the message names the line of the module's source.
    """
    shape = TensorShape(input.shape[1:] if isinstance(input, Tensor) else input)
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    example = torch.zeros(2, *shape, device=device)
    name = name or snake_case(type(module).__name__)
    steps = _steps_of(module, shape, example)
    graph = compose(tree_of(steps), steps)
    text = spec_text(name, shape, graph, Source(module))
    return Imported(text, module.state_dict())


def _steps_of(module: nn.Module, shape: TensorShape, example: Tensor) -> Steps:
    """The steps of a module; those of training if it has side heads, which only run then."""
    training = module.training
    try:
        module.eval()
        steps = normalize_concats(convert(trace(module, example, is_leaf), module, shape))
        if _unused(module, steps):
            module.train()
            steps = normalize_concats(convert(trace(module, example, is_leaf), module, shape))
    finally:
        module.train(training)
    if unused := _unused(module, steps):
        raise CnngraphError(f"`{unused[0]}` is part of the module, but its result does not need it")
    return steps


def _unused(module: nn.Module, steps: Steps) -> list[str]:
    """The parameters of a module that no step uses."""
    used = {step.module for step in steps.steps if step.weighted}
    names = [name for name, _ in module.named_parameters()]
    return [name for name in names if not {name, name.rpartition(".")[0]} & used]
