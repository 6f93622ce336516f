"""How exact an exported file is: it is run, and compared with the network in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import product, starmap
from typing import Any

import torch
from torch import Tensor

from cnngraph.export.open_sizes import Sizes
from cnngraph.lowering.network import Network
from cnngraph.shape import TensorShape

_BATCHES = (1, 3)

Run = Callable[..., Any]


def errors_of(network: Network, sizes: Sizes, run: Run) -> tuple[float, float]:
    """The errors of an exported file and of the network, for several batches and sizes."""
    inputs = network.compilation.graph.inputs
    shapes = [[tuple(shape) for shape in inputs.values()]]
    if any(not size.isdigit() for each in sizes.values() for size in each):
        shapes.append([_larger(shape) for shape in inputs.values()])
    generator = torch.Generator().manual_seed(0)
    exact = deepcopy(network).double()
    error = own = 0.0
    for batch, each in product(_BATCHES, shapes):
        given = [torch.rand(batch, *shape, generator=generator) for shape in each]
        with torch.no_grad():
            mine, other = _listed(network(*given)), _listed(run(*given))
            try:
                best = _listed(exact(*(x.double() for x in given)))
            except RuntimeError:  # a user's module that computes in float32 only
                best = mine
        error = max(error, *starmap(_difference, zip(other, best, strict=True)))
        own = max(own, *starmap(_difference, zip(mine, best, strict=True)))
    return error, own


def _difference(found: Tensor, best: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    if found.shape != best.shape:
        return math.inf
    error = float((found - best).abs().max()) / (float(best.abs().max()) or 1.0)
    return math.inf if math.isnan(error) else error


def _larger(shape: TensorShape) -> tuple[int, ...]:
    """Twice the height, or twice the length of a signal."""
    channels, *spatial = shape
    return (channels, 2 * spatial[0], *spatial[1:]) if spatial else (channels,)


def _listed(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return list(result.values() if isinstance(result, dict) else result)
