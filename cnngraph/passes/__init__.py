"""The passes: plain functions `Graph -> Graph`, in the order they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from cnngraph.errors import CnngraphError, closest
from cnngraph.graph import Graph, GraphError, Node
from cnngraph.ops import Op
from cnngraph.options import BACKENDS, Options, budget_of
from cnngraph.passes.append_dense_layers import append_dense_layers
from cnngraph.passes.channels_last import channels_last
from cnngraph.passes.convolutions import convolutions
from cnngraph.passes.eliminate_concat import eliminate_concat
from cnngraph.passes.fuse_batch_norm_act import fuse_batch_norm_act
from cnngraph.passes.fuse_max_pool import fuse_max_pool
from cnngraph.passes.linear_layers import linear_layers
from cnngraph.passes.plan_dense_blocks import plan_dense_blocks
from cnngraph.passes.recompute_activations import recompute_activations
from cnngraph.passes.recompute_to_fit import recompute_to_fit

Pass = Callable[[Graph], Graph]
Observer = Callable[[str, Graph], None]
"""A callback `(stage, graph)`, called after each stage."""

PASSES: tuple[Pass, ...] = (
    fuse_batch_norm_act,
    plan_dense_blocks,
    fuse_max_pool,
    channels_last,
    linear_layers,
    eliminate_concat,
    convolutions,
)
"""The passes of the fused backend for training, in the order they run."""

LEAN: tuple[Pass, ...] = (
    fuse_batch_norm_act,
    plan_dense_blocks,
    fuse_max_pool,
    channels_last,
    linear_layers,
    recompute_activations,
    eliminate_concat,
    convolutions,
)
"""The passes of the fused backend with the memory policy `lean`, or with a budget."""

INFERENCE: tuple[Pass, ...] = (
    fuse_batch_norm_act,
    append_dense_layers,
    channels_last,
    linear_layers,
)
"""The passes of a network for evaluation, after `fold_batch_norm`."""


def passes_of(options: Options) -> tuple[Pass, ...]:
    """The passes that these options run, in order.

    Raises `CnngraphError` for unknown names, and for options that exclude each other.
    """
    if options.backend not in BACKENDS:
        raise CnngraphError(
            f"there is no backend `{options.backend}`; choose one of: {', '.join(BACKENDS)}"
        )
    passes = _passes(options)
    names = [function.__name__ for function in passes]
    for name in options.disable_passes:
        if name not in names:
            raise CnngraphError(_unknown_pass(name, names))
    return tuple(item for item in passes if item.__name__ not in options.disable_passes)


def _unknown_pass(name: str, names: Sequence[str]) -> str:
    near = closest(name, names)
    suggestion = f"; did you mean `{near}`?" if near else "."
    listed = f"The passes are: {', '.join(names)}" if names else "This backend has none"
    return f"there is no pass `{name}` to disable{suggestion} {listed}"


def _passes(options: Options) -> tuple[Pass, ...]:
    if options.backend == "eager":
        if options.memory != "fast":
            raise CnngraphError(
                "the backend `eager` keeps what torch keeps: "
                f"memory `{options.memory}` is for the backend `fused`"
            )
        return ()
    budget = budget_of(options.memory)
    if budget is None:
        return LEAN if options.memory == "lean" else PASSES
    to_fit = _to_fit(budget, options.batch_size)
    return tuple(to_fit if function is recompute_activations else function for function in LEAN)


def _to_fit(budget: int, batch_size: int) -> Pass:
    def to_fit(graph: Graph) -> Graph:
        return recompute_to_fit(graph, budget, batch_size)

    to_fit.__name__ = recompute_to_fit.__name__
    return to_fit


@dataclass(frozen=True)
class PassResult:
    """What one pass did.

    Attributes:
        made: how many nodes it made, by the ops they replace, such as `batch_norm + relu`.
        nodes: the number of nodes after it.
        seconds: how long it took.
    """

    name: str
    made: dict[str, int]
    nodes: int
    seconds: float

    @property
    def rewrites(self) -> int:
        """The number of nodes it made."""
        return sum(self.made.values())


_LONGEST = 5
"""A node made from more ops than this is described by its own op."""


def _description(node: Node) -> str:
    kinds = [part.op.kind for part in node.parts]
    return " + ".join(kinds) if 0 < len(kinds) <= _LONGEST else node.op.kind


def _was_there(node: Node, before: Graph) -> bool:
    known = before.by_path.get(node.path)
    return known is not None and known.op == node.op


def _modules(graph: Graph) -> dict[str, Op]:
    return {leaf.path: leaf.op for leaf in graph.leaves() if leaf.op.has_module}


def run_passes(
    graph: Graph, passes: Sequence[Pass], observe: Observer = lambda name, graph: None
) -> tuple[Graph, list[PassResult]]:
    """Runs passes in order, and verifies the graph before the first and after each.

    Raises `GraphError` if a graph is inconsistent, or a pass changes the layers with modules.
    """
    graph.verify()
    observe("elaborate", graph)
    results: list[PassResult] = []
    for index, function in enumerate(passes):
        start = perf_counter()
        after = function(graph)
        seconds = perf_counter() - start
        try:
            after.verify()
            if _modules(after) != _modules(graph):
                raise GraphError("its layers with modules differ from those before")
        except GraphError as error:
            done = ", ".join(p.__name__ for p in passes[:index]) or "none"
            raise GraphError(
                f"the graph after the pass {function.__name__} is inconsistent: {error} "
                f"(passes before it: {done})"
            ) from error
        made = Counter(_description(node) for node in after.nodes if not _was_there(node, graph))
        results.append(PassResult(function.__name__, dict(made), len(after.nodes), seconds))
        observe(function.__name__, after)
        graph = after
    return graph, results
