"""What may be done to a graph. A pass is a plain function `Graph -> Graph`; the order is the one of `PASSES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.ops import Op
from cnngraph.passes.channels_last import channels_last
from cnngraph.passes.fold_batch_norm import fold_batch_norm
from cnngraph.passes.fuse_batch_norm_act import fuse_batch_norm_act
from cnngraph.passes.fuse_max_pool import fuse_max_pool
from cnngraph.passes.plan_dense_blocks import plan_dense_blocks
from cnngraph.passes.recompute_activations import recompute_activations
from cnngraph.passes.weight_gradients import weight_gradients

Pass = Callable[[Graph], Graph]
Observer = Callable[[str, Graph], None]
"""Is shown the graph after each stage, by the stage's name."""

PASSES: tuple[Pass, ...] = (fuse_batch_norm_act, plan_dense_blocks, fuse_max_pool, weight_gradients, channels_last)
"""The passes of the fused backend, in the order they run."""

LEAN: tuple[Pass, ...] = (
    fuse_batch_norm_act,
    plan_dense_blocks,
    fuse_max_pool,
    recompute_activations,
    weight_gradients,
    channels_last,
)
"""The passes of the fused backend where memory counts for more than time."""

BACKENDS: dict[str, tuple[Pass, ...]] = {
    "fused": PASSES,
    "eager": (),
    "inference": (fold_batch_norm, fuse_batch_norm_act, channels_last),
}
"""Backend -> the passes it runs. `eager` is plain torch.nn: the meaning of the language."""

MEMORY = ("fast", "lean")
"""What the fused backend may keep for backward: what is fastest, or as little as costs next to no time."""


def passes_of(backend: str, memory: str) -> tuple[Pass, ...]:
    """The passes of a backend under a memory policy. Raises `CnngraphError` for names there are not."""
    if backend not in BACKENDS:
        raise CnngraphError(f"there is no backend `{backend}`; choose one of: {', '.join(BACKENDS)}")
    if memory not in MEMORY:
        raise CnngraphError(f"there is no memory policy `{memory}`; choose one of: {', '.join(MEMORY)}")
    return LEAN if (backend, memory) == ("fused", "lean") else BACKENDS[backend]


@dataclass(frozen=True)
class PassResult:
    """What one pass did: the nodes it made that were not there before, and the time it took."""

    name: str
    rewrites: int
    nodes: int
    seconds: float


def _modules(graph: Graph) -> dict[str, Op]:
    return {leaf.path: leaf.op for leaf in graph.leaves() if leaf.op.has_module}


def run_passes(
    graph: Graph, passes: Sequence[Pass], observe: Observer = lambda name, graph: None
) -> tuple[Graph, list[PassResult]]:
    """Runs passes in order; the graph is verified before the first and after each."""
    graph.verify()
    observe("elaborate", graph)
    results = []
    for index, function in enumerate(passes):
        start = perf_counter()
        after = function(graph)
        seconds = perf_counter() - start
        try:
            after.verify()
            assert _modules(after) == _modules(graph), "the layers with modules are not those there were"
        except AssertionError as error:
            done = ", ".join(p.__name__ for p in passes[:index]) or "none"
            raise CnngraphError(
                f"the pass {function.__name__} left a graph that contradicts itself: {error} (passes before it: {done})"
            ) from error
        made = sum(graph.by_path.get(node.path) is not node for node in after.nodes)
        results.append(PassResult(function.__name__, made, len(after.nodes), seconds))
        observe(function.__name__, after)
        graph = after
    return graph, results
