"""For evaluation: folds the batch norm, addition and activation after a convolution into it."""

from __future__ import annotations

from collections.abc import Sequence

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import Folded
from cnngraph.ops.merge import Add
from cnngraph.ops.norm import BatchNorm


def fold_batch_norm(graph: Graph) -> Graph:
    """Of two convolutions whose results are added, the later one takes in the addition.

    Convolutions with nothing to fold are replaced too, to keep their weights in oneDNN's layout.
    """
    groups: list[Group] = []
    taken: set[str] = set()
    for node in reversed(graph.nodes):
        if isinstance(node.op, Conv2d) and node.op.padding_mode == "zeros":
            chain = _chain(graph, node, taken)
            taken.update(part.path for part in chain)
            groups.append((chain, fold_chain(chain)))
    return graph.replace_groups(groups)


def _chain(graph: Graph, conv: Node, taken: set[str]) -> list[Node]:
    """The convolution, and the batch norm, addition and activation after it, as far as present."""
    chain = [conv]
    for kind in (BatchNorm, Add, FUSED_WITH_BATCH_NORM):
        user = graph.only_user(chain[-1].path)
        if user is None:
            break
        if isinstance(user.op, kind) and user.path not in taken and len(user.inputs) <= 2:
            chain.append(user)
    return chain


def fold_chain(chain: Sequence[Node]) -> Node:
    """A convolution and what follows it as one node."""
    conv, *rest = chain
    found = {type(part.op): part for part in rest}
    norm, add = found.get(BatchNorm), found.get(Add)
    activation = chain[-1] if isinstance(chain[-1].op, FUSED_WITH_BATCH_NORM) else None
    own = {part.path for part in chain}
    others = [path for path in add.inputs if path not in own] if add else []
    op = Folded(
        layer=conv.op,
        batch_norm=norm.op if norm else None,
        activation=activation.op if activation else None,
        residual=add is not None,
    )
    return Node.fuse(chain, op, (*conv.inputs, *others))
