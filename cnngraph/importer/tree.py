"""The steps of a network in the tree of its modules: each level contains steps and levels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from cnngraph.importer.steps import Step, Steps, UnsupportedError


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


def parent_of(path: str) -> str:
    """The path of the level around a path."""
    return path.rpartition(".")[0]


def tree_of(network: Steps) -> Level:
    """The tree of a network.

    Raises:
        UnsupportedError: a module with weights runs twice, or modules of two levels alternate.
    """
    steps = _placed(network.steps)
    root = Level("")
    open_levels = [root]
    closed: dict[str, Level] = {}
    for step in steps:
        path = parent_of(step.module) if step.module else step.level
        while open_levels[-1].path and not _within(path, open_levels[-1].path):
            level = open_levels.pop()
            closed[level.path] = level
        around = open_levels[-1].path
        for name in path.removeprefix(f"{around}." if around else "").split("."):
            if path == around or not path:
                break
            inner = f"{open_levels[-1].path}.{name}".lstrip(".")
            if inner in closed:
                _reopen(closed.pop(inner), open_levels[-1], step)
                level = next(
                    item
                    for item in open_levels[-1].items
                    if isinstance(item, Level) and item.path == inner
                )
            else:
                level = Level(inner)
                open_levels[-1].items.append(level)
            open_levels.append(level)
        open_levels[-1].items.append(step)
    _find_borders(root, network)
    return root


def _within(path: str, level: str) -> bool:
    return path == level or path.startswith(f"{level}.")


def _placed(steps: tuple[Step, ...]) -> list[Step]:
    """The steps with the paths that the tree uses.

    A module that is a single op with weights is no level, even if its `forward` makes other calls;
    a module without weights that runs twice, or outside of its parent, has no path.
    """
    weighted = {step.module for step in steps if step.weighted}
    calls = Counter(step.module for step in steps if step.module)
    for step in steps:
        if step.weighted and calls[step.module] > 1:
            raise UnsupportedError(
                f"{step.place}: `{step.module}` runs {calls[step.module]} times with one set of"
                " weights".lstrip(": ")
            )
    placed: list[Step] = []
    for step in steps:
        level, module = step.level, step.module
        if not step.weighted:
            outside = module and not _within(module, level) and level
            if calls[module] > 1 or outside:
                module = ""
            for own in weighted:
                if _within(level, own) or (module and _within(module, own)):
                    level, module = parent_of(own), ""
        placed.append(replace(step, level=level, module=module))
    return placed


def _reopen(level: Level, parent: Level, step: Step) -> None:
    """Moves what came after a level into it, so that the level can continue."""
    at = parent.items.index(level)
    after = parent.items[at + 1 :]
    for item in after:
        if isinstance(item, Level) or item.weighted:
            other = item.path if isinstance(item, Level) else item.module
            raise UnsupportedError(
                f"{step.place}: `{level.path}` runs before and after `{other}`, "
                "so that it is no level of its own".lstrip(": ")
            )
        item.module = ""
    level.items += after
    del parent.items[at + 1 :]


def _find_borders(root: Level, network: Steps) -> None:
    """Sets what each level reads from outside, and which of its values are read outside."""
    returned = {network.output, *network.heads}

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
