"""Initial weights: what a spec's `init` says in place of the defaults of torch's modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from cnngraph.graph import Graph, Node
from cnngraph.ops.merge import Add
from cnngraph.ops.norm import BatchNorm
from cnngraph.ops.regularization import Dropout, DropPath
from cnngraph.ops.scale import Scale
from cnngraph.ops.shape import Identity
from cnngraph.spec.initial import ZERO_LAST_NORM, Rules, Scheme

_PASSED = (Identity, Scale, DropPath, Dropout)
"""Ops between the last norm of a residual's body and the sum."""
_NAMES = {"truncated_normal": "trunc_normal"}
"""Schemes with another name in `torch.nn.init`."""


def initialise(module: nn.Module | nn.Parameter, node: Node, rules: Rules) -> None:
    """Applies the rules for a node to the parameters of its new module; its own count first."""
    for name, scheme in {**rules.get(node.op.kind, {}), **node.init}.items():
        parameter = getattr(module, name, None)
        if isinstance(parameter, nn.Parameter):
            _apply(Scheme(*scheme), parameter)


def zero_last_norms(
    graph: Graph, modules: Mapping[str, nn.Module | nn.Parameter], rules: Rules
) -> None:
    """With `zero_last_norm`, each residual starts as its shortcut.

    The weight of the batch norm that ends the body of a residual becomes zero (Goyal et al.,
    https://arxiv.org/abs/1706.02677, section 5.1).
    """
    if ZERO_LAST_NORM not in rules:
        return
    for node in graph.leaves():
        last = _last_norm(graph, node)
        if last is None or "weight" in graph.by_path[last].init:
            continue
        weight = getattr(modules.get(last), "weight", None)
        if isinstance(weight, nn.Parameter):
            nn.init.zeros_(weight)


def _last_norm(graph: Graph, node: Node) -> str | None:
    """The path of the norm that ends the first side of a sum; None if another op does."""
    if not isinstance(node.op, Add):
        return None
    before = graph.by_path.get(node.inputs[0])
    while before is not None and isinstance(before.op, _PASSED):
        before = graph.by_path.get(before.inputs[0])
    return before.path if before is not None and isinstance(before.op, BatchNorm) else None


def _apply(scheme: Scheme, parameter: nn.Parameter) -> None:
    function: Any = getattr(nn.init, f"{_NAMES.get(scheme.name, scheme.name)}_")
    function(parameter, **scheme.arguments)
