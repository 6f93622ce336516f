"""Modules with weights that run several times: the later calls become `share`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from cnngraph.importer.steps import Share, Step, Steps, UnsupportedError, ancestors


def share_calls(network: Steps) -> Steps:
    """The network with each later call of a module with weights as one step.

    Raises:
        UnsupportedError: a later call reads, or computes, more than one value.
    """
    steps = list(network.steps)
    weighted = {path for step in steps if step.weighted for path in ancestors(step.module)}
    seen: set[str] = set()
    groups: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        called_again = [
            call for call in step.calls if "@" in call and call.partition("@")[0] in weighted
        ]
        if called_again:
            groups[called_again[0]].append(step)
        elif step.weighted and step.module in seen:  # its weights, in a call of a function
            groups[f"{step.module}@{step.result}"].append(step)
        seen.add(step.module if step.weighted else "")
    results = {network.output, *network.outputs.values(), *network.heads}
    for call, members in groups.items():
        shared = _shared(call.partition("@")[0], members, steps, results)
        steps = [
            shared if step is members[-1] else step
            for step in steps
            if step is members[-1] or step not in members
        ]
    return replace(network, steps=tuple(steps))


def _shared(path: str, members: Sequence[Step], steps: Sequence[Step], results: set[str]) -> Step:
    """The step for all steps of one call."""
    made = {step.result for step in members}
    reads = list(dict.fromkeys(name for step in members for name in step.reads if name not in made))
    outside = {name for step in steps if step not in members for name in step.reads} | results
    used = [step for step in members if step.result in outside]
    first, place = members[0], members[0].place
    if len(reads) != 1 or used != [members[-1]]:
        raise UnsupportedError(
            f"{place}: `{path}` runs again with the same weights, and reads or returns several"
            " values".lstrip(": "),
            first.level,
        )
    calls: list[str] = []
    for call in first.calls:
        if call.partition("@")[0] == path:
            break
        calls.append(call)
    level = calls[-1].partition("@")[0] if calls else ""
    last = members[-1]
    return Step(
        last.result, Share(of=path), (reads[0],), first.input, last.shape, level, place=place,
        calls=tuple(calls),
    )  # fmt: skip
