"""For evaluation: folds the batch norm, addition and activation after a convolution into it."""

from __future__ import annotations

from collections.abc import Sequence

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import Folded
from cnngraph.ops.linear import Linear
from cnngraph.ops.merge import Add
from cnngraph.ops.norm import BatchNorm


def fold_batch_norm(graph: Graph) -> Graph:
    """Of two convolutions whose results are added, the later one takes in the addition.

    Convolutions with nothing to fold are replaced too, to keep their weights in oneDNN's layout.
    """
    groups: list[Group] = []
    taken: set[str] = set()
    for node in reversed(graph.nodes):
        chain = _chain(graph, node, taken)
        if chain:
            taken.update(part.path for part in chain)
            groups.append((chain, _fold(chain)))
    return graph.replace_groups(groups)


def _chain(graph: Graph, layer: Node, taken: set[str]) -> list[Node]:
    """A layer, and the batch norm, addition and activation after it, as far as present.

    All are in one level of the spec. A linear layer counts only with a batch norm.
    """
    if isinstance(layer.op, Conv2d) and layer.op.padding_mode == "zeros":
        kinds = (BatchNorm, Add, FUSED_WITH_BATCH_NORM)
    elif isinstance(layer.op, Linear):
        kinds = (BatchNorm, FUSED_WITH_BATCH_NORM)
    else:
        return []
    chain = [layer]
    for kind in kinds:
        user = graph.only_user(chain[-1].path)
        if user is None or not _is_beside(layer.path, user.path):
            break
        if isinstance(user.op, kind) and user.path not in taken and len(user.inputs) <= 2:
            chain.append(user)
    folds = isinstance(layer.op, Conv2d) or isinstance(chain[min(1, len(chain) - 1)].op, BatchNorm)
    return chain if folds else []


def _is_beside(layer: str, user: str) -> bool:
    """Whether the node at `user` is in the level of the layer, or joins the branches of it."""
    level = layer.rpartition(".")[0]
    return level in (user, user.rpartition(".")[0])


def _fold(chain: Sequence[Node]) -> Node:
    layer, *rest = chain
    found = {type(part.op): part for part in rest}
    norm, add = found.get(BatchNorm), found.get(Add)
    activation = chain[-1] if isinstance(chain[-1].op, FUSED_WITH_BATCH_NORM) else None
    own = {part.path for part in chain}
    others = [path for path in add.inputs if path not in own] if add else []
    op = Folded(
        layer=layer.op,
        batch_norm=norm.op if norm else None,
        activation=activation.op if activation else None,
        residual=add is not None,
    )
    return Node.fuse(chain, op, (*layer.inputs, *others))
