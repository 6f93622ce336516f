"""Programs of `torch.export` whose batch, and where that works whose sizes, stay open."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from cnngraph.errors import CnngraphError, first_line
from cnngraph.graph import Graph
from cnngraph.graph.input_sizes import input_sizes
from cnngraph.lowering.network import Network

Sizes = dict[str, tuple[str, ...]]
"""For each input, by name, the sizes that it may have, without the batch."""


def open_programs(network: Network) -> Iterator[tuple[ExportedProgram, Sizes]]:
    """The programs of a network, and the sizes that they accept: open ones first.

    `torch.export` finds out itself whether sizes can stay open.
    """
    graph = network.compilation.graph
    if (open_sizes := _open_sizes(graph)) is not None:
        with suppress(CnngraphError):
            program = _export(network, open_sizes)
            if (sizes := _sizes(graph, program)) is not None:
                yield program, sizes
    fixed = {name: (Dim.STATIC,) * len(shape.spatial) for name, shape in graph.inputs.items()}
    sizes = {name: tuple(map(str, shape)) for name, shape in graph.inputs.items()}
    yield _export(network, fixed), sizes


def _open_sizes(graph: Graph) -> dict[str, tuple[Any, ...]] | None:
    """The sizes of each input, for `torch.export`, if they can differ from the declared.

    They can if all larger sizes work, or all multiples of a number, as far as was tried.
    """
    found = input_sizes(graph)
    if found is None:
        return None
    declared = max(size for shape in graph.inputs.values() for size in shape.spatial)
    larger = [size for size in found.valid if size >= declared]
    if len(larger) < 2:
        return None
    step = larger[1] - larger[0]
    if larger != [*range(declared, found.range[1] + 1, step)] or declared % step:
        return None
    if step == 1:
        return {name: (Dim.AUTO,) * len(shape.spatial) for name, shape in graph.inputs.items()}
    if len(graph.inputs) > 1:
        return None
    return {
        name: tuple(step * Dim(f"size{i}") for i in range(len(shape.spatial)))
        for name, shape in graph.inputs.items()
    }


def _export(network: Network, sizes: Mapping[str, tuple[Any, ...]]) -> ExportedProgram:
    inputs = network.compilation.graph.inputs
    examples = tuple(torch.zeros(2, *shape) for shape in inputs.values())
    shapes = [
        dict(
            enumerate((Dim.DYNAMIC, *(Dim.STATIC,) * (len(shape) - len(sizes[name])), *sizes[name]))
        )
        for name, shape in inputs.items()
    ]
    try:
        return torch.export.export(network, examples, dynamic_shapes=tuple(shapes), strict=False)
    except Exception as error:  # torch raises many types
        raise CnngraphError(f"torch cannot export this network: {reason(error)}") from error


def _sizes(graph: Graph, program: ExportedProgram) -> Sizes | None:
    """The sizes that a program accepts; None unless all sizes from some least one upwards work."""
    values = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
    }
    names = program.graph_signature.user_inputs
    found: Sizes = {}
    for name, user_input in zip(graph.inputs, names, strict=True):
        sizes = [_size(size, program) for size in values[user_input].shape[1:]]
        if not all(sizes):
            return None
        found[name] = tuple(sizes)
    return found


def _size(size: Any, program: ExportedProgram) -> str:
    """Such as `16`, `32+` or `16k`; empty if an open size has an upper limit."""
    if isinstance(size, int):
        return str(size)
    factor, symbol = size.node.expr.as_coeff_Mul()
    known = program.range_constraints.get(symbol)
    if known is None or known.upper < sys.maxsize // 2:
        return ""
    return f"{factor}k" if factor > 1 else f"{known.lower}+"


def reason(error: BaseException) -> str:
    """The first line of what caused an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
