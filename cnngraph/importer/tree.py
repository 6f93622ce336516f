"""The steps of a network in the tree of its modules: each level contains steps and levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from cnngraph.importer.steps import Step, Steps, ancestors, is_within, parent_of


@dataclass(eq=False)
class Level:
    """A module that contains steps.

    Attributes:
        path: its path; empty for the network.
        items: its steps and levels, in execution order.
        results: the names of its values that are read outside, in order.
    """

    path: str
    items: list[Step | Level] = field(default_factory=list["Step | Level"])
    reads: tuple[str, ...] = ()
    results: tuple[str, ...] = ()

    @property
    def steps(self) -> list[Step]:
        """All steps in it."""
        return [
            step
            for item in self.items
            for step in (item.steps if isinstance(item, Level) else [item])
        ]

    @property
    def result(self) -> str:
        """The last of its values that are read outside."""
        return self.results[-1] if self.results else self.steps[-1].result


Item = Step | Level


def results_of(item: Item) -> tuple[str, ...]:
    """The values of an item that others read."""
    return item.results if isinstance(item, Level) else (item.result,)


def tree_of(network: Steps) -> Level:
    """The tree of a network.

    A container between whose steps others come, or whose children read different values, is no
    level: its children belong to the level around it, under names with dots.
    """
    steps = _placed(network.steps)
    called = {call.partition("@")[0] for step in steps for call in step.calls}
    dissolved: set[str] = set()
    while True:
        root, interrupted = _nested(steps, dissolved)
        if not interrupted:
            _find_borders(root, network)
            interrupted = {level.path for level in _levels(root) if _is_loose(level, called)}
        if not interrupted:
            return root
        dissolved |= interrupted


def _nested(steps: list[Step], dissolved: set[str]) -> tuple[Level, set[str]]:
    """The steps in levels, and the path of a level that is interrupted by steps of others."""
    root = Level("")
    levels = {"": root}
    open_levels = [root]
    for step in steps:
        path = parent_of(step.module) if step.module else step.level
        wanted = [inner for inner in ancestors(path) if inner not in dissolved]
        while open_levels[-1].path and open_levels[-1].path not in wanted:
            open_levels.pop()
        for inner in wanted[len(open_levels) - 1 :]:
            level = levels.get(inner)
            if level is None:
                level = levels[inner] = Level(inner)
                open_levels[-1].items.append(level)
            elif not _continues(level, open_levels[-1]):
                return root, {inner}
            open_levels.append(level)
        open_levels[-1].items.append(step)
    return root, set()


def _continues(level: Level, parent: Level) -> bool:
    """Moves what came after a level into it, if that has no weights, so that it can continue."""
    at = parent.items.index(level)
    after = parent.items[at + 1 :]
    if any(isinstance(item, Level) or item.weighted for item in after):
        return False
    for item in after:
        assert isinstance(item, Step)
        item.module = ""
    level.items += after
    del parent.items[at + 1 :]
    return True


def _levels(level: Level) -> Iterator[Level]:
    """All levels in a level."""
    for item in level.items:
        if isinstance(item, Level):
            yield item
            yield from _levels(item)


def children_of(root: Level) -> dict[str, set[str]]:
    """The names of the nodes in each level, by its path."""
    found: dict[str, set[str]] = {}
    for level in (root, *_levels(root)):
        paths = [item.path if isinstance(item, Level) else item.module for item in level.items]
        own = (path.removeprefix(f"{level.path}." if level.path else "") for path in paths)
        found[level.path] = {name.partition(".")[0] for name in own if name}
    return found


def _is_loose(level: Level, called: set[str]) -> bool:
    """Whether a level is a container that is not called, of children that form no chain."""
    return level.path not in called and (len(level.reads) != 1 or len(level.results) > 1)


def _placed(steps: tuple[Step, ...]) -> list[Step]:
    """The steps with the paths that the tree uses.

    A module that is a single op with weights is no level, even if its `forward` makes other calls;
    a module without weights that runs twice, or outside of its parent, has no path.
    """
    weighted = {step.module for step in steps if step.weighted}
    holding = {path for module in weighted for path in ancestors(module)}
    counts = Counter(step.module for step in steps if step.module)
    again = {call.partition("@")[0] for step in steps for call in step.calls if "@" in call}
    again -= holding
    placed: list[Step] = []
    for step in steps:
        level, module = step.level, step.module
        level = next((parent_of(path) for path in ancestors(level) if path in again), level)
        if not step.weighted:
            outside = module and not is_within(module, level) and level
            if counts[module] > 1 or outside:
                module = ""
            for own in weighted:
                if is_within(level, own) or (module and is_within(module, own)):
                    level, module = parent_of(own), ""
        placed.append(replace(step, level=level, module=module))
    return placed


def _find_borders(root: Level, network: Steps) -> None:
    """Sets what each level reads from outside, and which of its values are read outside."""
    returned = {network.output, *network.outputs.values(), *network.heads}

    def visit(level: Level) -> None:
        inside = {step.result for step in level.steps}
        reads = dict.fromkeys(
            name for step in level.steps for name in step.reads if name not in inside
        )
        outside = {
            name for step in network.steps if step.result not in inside for name in step.reads
        }
        level.reads = tuple(reads)
        level.results = tuple(
            step.result for step in level.steps if step.result in outside or step.result in returned
        )
        for item in level.items:
            if isinstance(item, Level):
                visit(item)

    visit(root)
