"""Concatenations in the form that the language has: at the level of what they join, and growing."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.importer.steps import Step, Steps, parent_of
from cnngraph.ops.merge import Concat


def normalize_concats(network: Steps) -> Steps:
    """The same network with concatenations moved and shortened.

    A module that first concatenates several inputs gets the result instead. A concatenation that
    continues an earlier one, as in a DenseNet, reads the earlier one.
    """
    steps = _hoisted(network.steps)
    earlier: dict[tuple[str, ...], Step] = {}
    found: list[Step] = []
    for step in steps:
        if isinstance(step.op, Concat):
            reads = step.reads
            for length in range(len(reads) - 1, 1, -1):
                known = earlier.get(reads[:length])
                if known is not None:
                    rest = reads[length:]
                    step = replace(step, reads=(known.result, *rest), input=known.shape)
                    break
            earlier.setdefault(reads, step)
        found.append(step)
    return replace(network, steps=tuple(found))


def _hoisted(steps: tuple[Step, ...]) -> list[Step]:
    entered: set[str] = {""}
    found: list[Step] = []
    for step in steps:
        level = step.level
        while isinstance(step.op, Concat) and level not in entered:
            level = parent_of(level)
        found.append(replace(step, level=level))
        path = level
        while path:
            entered.add(path)
            path = parent_of(path)
        path = parent_of(step.module) if step.module else ""
        while path:
            entered.add(path)
            path = parent_of(path)
    return found
