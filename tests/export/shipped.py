"""The shipped specs as networks whose results depend on all of their weights."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from conftest import SPECS
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

import cnngraph
from cnngraph.graph import Graph
from cnngraph.graph.input_sizes import input_sizes

ALL = sorted(
    path.relative_to(SPECS).with_suffix("").as_posix()
    for path in [*SPECS.glob("*.yaml"), *SPECS.glob("d2l/*.yaml")]
)


def on_meta(spec: str) -> Any:
    with torch.device("meta"):
        return cnngraph.compile(SPECS / f"{spec}.yaml", backend="eager")


def on_meta_text(text: str) -> Any:
    with torch.device("meta"):
        return cnngraph.compile(text, backend="eager")


def filled(network: Any) -> Any:
    """A network on the meta device, with random weights that let its results depend on its input.

    The statistics of batch norms are those of random images.
    """
    generator = torch.Generator().manual_seed(0)
    network = network.to_empty(device="cpu")
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            tensor.zero_()
        elif tensor.numel() > len(tensor):
            bound = (6 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-bound, bound, generator=generator)
        elif name.endswith("bias"):
            tensor.uniform_(-0.2, 0.2, generator=generator)
        else:
            tensor.uniform_(0.3, 0.9, generator=generator)
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    for module in norms:
        module.momentum = 1.0
    shape = least_input(network.compilation.graph, 64)
    brightness = torch.rand(16, shape[0], *(1,) * (len(shape) - 1), generator=generator)
    x = 2 * brightness * torch.rand(16, *shape, generator=generator)
    with torch.no_grad():
        network.train()(x)
    for module in norms:
        module.momentum = 0.1
    return network


def least_input(graph: Graph, at_least: int = 1) -> tuple[int, ...]:
    """The shape of the smallest image that a network accepts, of at least this height."""
    sizes = input_sizes(graph)
    if sizes is None:
        return tuple(graph.input)
    size = min((size for size in sizes.valid if size >= at_least), default=None)
    return (
        tuple(graph.input)
        if size is None
        else (graph.input.channels, *[size] * len(graph.input.spatial))
    )


def small(spec: str, at_least: int) -> Any:
    """A shipped spec's network for such images, with weights."""
    channels, *sizes = least_input(on_meta(spec).compilation.graph, at_least)
    text = f"cnngraph: 1\nname: small\nextends: {spec}.yaml\ninput: {[channels, *sizes]}\n"
    with torch.device("meta"), contextlib.chdir(SPECS):
        network = cnngraph.compile(text, backend="eager")
    return filled(network)
