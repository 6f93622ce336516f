"""`init` of a node: how the weights of its op are initialised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cnngraph.elaborate.place import Call, Given, Place, Value
from cnngraph.elaborate.walker import Walker
from cnngraph.errors import Diagnostic
from cnngraph.graph import Node
from cnngraph.spec.initial import Schemes, schemes
from cnngraph.spec.yaml import Located


def initialised(
    walk: Walker, call: Call, located: Located, node: Node, place: Place, values: Sequence[Value]
) -> Node:
    """The node with what its `init`, `located`, states; without it after a mistake in it.

    `values` are its inputs, the first of which expressions see. Raises `InvalidError`.
    """
    stated = Given.plain(walk.evaluator.resolve(located, place, values[0].shape))
    known = node.op.parameters(*(value.shape for value in values if value.shape is not None))
    problem = ""
    init: Schemes = {}
    try:
        init = schemes(call.kind, stated)
    except ValueError as error:
        problem = f"`init` {error}"
    if missing := [name for name in init if name not in known]:
        problem = f"this `{call.kind}` has no `{missing[0]}` to initialise"
    if problem:
        diagnostic = Diagnostic("E103", problem, located.position)
        walk.diagnostics.report(diagnostic, place, node.path)
        return node
    return replace(node, init=init)
