"""For evaluation: a convolution takes in the batch norm, the addition and the activation after it."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import FoldedConv
from cnngraph.ops.merge import Add
from cnngraph.ops.norm import BatchNorm


def fold_batch_norm(graph: Graph) -> Graph:
    """Works backwards, so that of two convolutions that meet in an addition the later one takes it in.

    One that takes in nothing is rewritten too: its weights are then kept in the library's own layout.
    """
    folded: dict[str, Node] = {}
    taken: set[str] = set()
    for node in reversed(graph.nodes):
        if isinstance(node.op, Conv2d) and node.op.padding_mode == "zeros":
            chain = _chain(graph, node, taken)
            taken.update(part.path for part in chain)
            folded[chain[-1].path] = _fold(chain)
    nodes = [folded.get(node.path, node) for node in graph.nodes if node.path in folded or node.path not in taken]
    return graph.with_nodes(nodes)


def _chain(graph: Graph, conv: Node, taken: set[str]) -> list[Node]:
    """The convolution, and what follows it and can be taken in: a batch norm, an addition, an activation, each or none."""
    chain = [conv]
    for kind in (BatchNorm, Add, FUSED_WITH_BATCH_NORM):
        last = chain[-1]
        users = graph.users.get(last.path, ())
        if len(users) != 1 or last.path in graph.outputs:
            break
        (user,) = users
        if isinstance(user.op, kind) and user.path not in taken and len(user.inputs) <= 2 and user.aux == conv.aux:
            chain.append(user)
    return chain


def _fold(chain: list[Node]) -> Node:
    """The folded node has the last part's path and place, by which others read it."""
    conv, *rest = chain
    found = {type(part.op): part for part in rest}
    norm, add = found.get(BatchNorm), found.get(Add)
    activation = chain[-1] if isinstance(chain[-1].op, FUSED_WITH_BATCH_NORM) else None
    held = {part.path for part in chain}
    others = tuple(path for path in add.inputs if path not in held) if add else ()
    op = FoldedConv(
        conv=conv.op,
        batch_norm=norm.op if norm else None,
        activation=activation.op if activation else None,
        residual=add is not None,
    )
    return replace(chain[-1], op=op, inputs=(*conv.inputs, *others), parts=tuple(chain))
