"""Calls of blocks: what their bodies see, how they share a level, and the order of their weights."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from cnngraph.elaborate.naming import Level
from cnngraph.elaborate.params import block_arguments, count_params
from cnngraph.elaborate.place import LOST, Call, Place, Value
from cnngraph.errors import Diagnostic, Position, did_you_mean, has_errors
from cnngraph.spec.document import COMPOSITES
from cnngraph.spec.expressions import UNKNOWN
from cnngraph.spec.loader import Block
from cnngraph.spec.yaml import Located

if TYPE_CHECKING:
    from cnngraph.elaborate.walk import Walk


def call_block(walk: Walk, call: Call, block: Block, place: Place, value: Value, own: str | None) -> Value:
    callers = [caller for caller, _ in place.calls]
    if block in callers:
        chain = " -> ".join(item.name for item in (*callers, block))
        message = f"the block `{block.name}` contains itself: {chain}"
        walk.fail(place, "E106", message, call.position)
    walk.called[id(block)] = block
    count_params(walk, block.params, place, block.position)
    walk.spend(len(block.params) // 4, place, call.position)
    variables = block_arguments(walk, call, block, place, value)
    inside, path = walk.inner(call, place, value, own)
    calls = (*place.calls, (block, call.position))
    inside = replace(inside, library=block.library, variables=variables, calls=calls)
    _note_order(walk, block, inside, call.position)
    whole = _whole(walk, block.body, inside, value) if path else None
    if whole is not None:
        return walk.finish(call, path, walk.node(whole, inside, value, path))
    return walk.finish(call, path, walk.body(block.body, inside, value))


def _whole(walk: Walk, body: Located, place: Place, value: Value) -> Located | None:
    """The single node that shares one level with the block whose whole body it is."""
    if not isinstance(body.value, list):
        return body
    if len(body.value) != 1:
        return None
    item = body.value[0]
    kind = next(iter(item.value), None) if isinstance(item.value, dict) else item.value
    if isinstance(kind, str):
        kind = walk.resolve(Located(kind, item.position), place, value.shape)
    named = isinstance(kind, str) and (kind in COMPOSITES or kind in place.library.blocks)
    return item if named else None


def _note_order(walk: Walk, block: Block, place: Place, position: Position) -> None:
    if block.order is not None:
        path = place.level.path
        names = (*walk.order.get(path, ()), *block.order.plain())
        walk.spend(len(names) // 4, place, position)
        walk.order[path] = tuple(dict.fromkeys(names))
        walk.ordered.setdefault(id(block), (block, []))[1].append(path)


def check_unused(walk: Walk) -> None:
    """Walks the blocks of the file that nothing calls, as far as they can be known without a call."""
    for block in walk.spec.library.blocks.values():
        if block.library is walk.spec.library and id(block) not in walk.called and not walk.stopped:
            variables = {**walk.globals, **dict.fromkeys(block.params, UNKNOWN)}
            place = Place(Level(f"(block {block.name})"), block.library, variables, unused=True)
            walk.body(block.body, place, LOST)


def check_order(walk: Walk) -> None:
    """A name in a block's `order` may be missing in some of its calls, but not in all."""
    if not walk.ordered or has_errors(walk.diagnostics):
        return
    children: dict[str, list[str]] = defaultdict(list)
    for path in walk.taken:
        parent, _, name = path.rpartition(".")
        children[parent].append(name)
    for block, paths in walk.ordered.values():
        assert block.order is not None
        known = {name for path in paths for name in children[path]}
        for index, name in enumerate(block.order.plain()):
            if name not in known:
                message = f"the block `{block.name}` has no node called `{name}` to put in order"
                notes = did_you_mean(name, known) or (("note", f"it has: {', '.join(sorted(known))}"),)
                walk.report(Diagnostic("E109", message, block.order.at((index,)), notes=notes))
