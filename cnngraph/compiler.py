"""The flow: YAML -> spec -> graph -> passes -> module. Read this first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import fx

from cnngraph.checking import SpecLike, read_spec
from cnngraph.elaborate import elaborate
from cnngraph.errors import CnngraphError, SpecError
from cnngraph.expectations import check_expectations
from cnngraph.graph import Graph
from cnngraph.imports import Spec
from cnngraph.lowering import lower
from cnngraph.passes import PASSES, Observer, Pass, PassResult, run_passes

Backend = Literal["fused", "eager"]

BACKENDS: dict[str, tuple[Pass, ...]] = {"fused": PASSES, "eager": ()}
"""Backend -> the passes it runs. `eager` is plain torch.nn: the meaning of the language."""


@dataclass(frozen=True)
class Compilation:
    """What a network was compiled from and how; at `net.meta["cnngraph"]` of every compiled network."""

    spec: Spec
    params: Mapping[str, Any]
    backend: str
    graph: Graph
    passes: tuple[PassResult, ...]


def compile(
    spec: SpecLike,
    params: Mapping[str, Any] | None = None,
    *,
    backend: Backend = "fused",
    observe: Observer = lambda stage, graph: None,
) -> fx.GraphModule:
    """Compiles a spec into an ordinary `nn.Module` with newly initialised weights.

    Args:
        spec: path of a YAML file, or the YAML text itself (anything with a line break).
        params: values for the spec's `params`, such as `{"num_classes": 10}`.
        backend: `fused` uses the fused operators, `eager` plain torch.nn; the weights fit both.
        observe: is called with a stage's name and the graph after it.

    Returns:
        A `torch.fx.GraphModule` from `(batch, *input)` to the last node's value; a network with side heads returns,
        in training, a dict of `logits` and each head's result by name.

    Raises:
        SpecError: the spec does not hold; every mistake is in its `diagnostics`.
    """
    return compile_spec(read_spec(spec), params or {}, backend, observe)


def compile_spec(
    spec: Spec, params: Mapping[str, Any], backend: str, observe: Observer = lambda stage, graph: None
) -> fx.GraphModule:
    """`compile` for a spec that was read already."""
    if backend not in BACKENDS:
        raise CnngraphError(f"there is no backend `{backend}`; choose one of: {', '.join(BACKENDS)}")
    graph, diagnostics = elaborate(spec, params)
    if graph is not None and not params:
        diagnostics += check_expectations(spec, graph)
    errors = [item for item in diagnostics if item.severity == "error"]
    if graph is None or errors:
        raise SpecError(errors)
    optimized, passes = run_passes(graph, BACKENDS[backend], observe)
    network = lower(optimized)
    network.meta["cnngraph"] = Compilation(spec, dict(params), backend, graph, tuple(passes))
    return network
