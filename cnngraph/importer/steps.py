"""What a traced module computes, in the language's ops: a list of steps in execution order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cnngraph.errors import CnngraphError
from cnngraph.ops import OPS, Op
from cnngraph.shape import TensorShape


def new_op(kind: str, **fields: Any) -> Op:
    """An op by its name in specs."""
    return OPS[kind](**fields)


class Share(Op):
    """The call of an earlier module again, which the language writes as `share`."""

    kind = "share"
    of: str
    """The path of the module."""


class UnsupportedError(CnngraphError):
    """Something that the language cannot say; the message names its place in the source.

    Attributes:
        level: the path of the module whose `forward` needs it.
    """

    def __init__(self, message: str, level: str = "") -> None:
        super().__init__(message)
        self.level = level


@dataclass(eq=False)
class Step:
    """One op of a module.

    Attributes:
        result: the name of its value.
        reads: the names of the values it reads.
        shape: the shape of its result, without the batch.
        level: the path of the module whose `forward` calls it.
        module: the path of the module that it is, or that contains its weights; else empty.
        place: its place in the source, such as `net.py:12`.
        weighted: whether it has weights.
        calls: the calls of modules that it is part of, the outermost first: the path of a module,
            followed by `@1` in its second call.
    """

    result: str
    op: Op
    reads: tuple[str, ...]
    input: TensorShape
    shape: TensorShape
    level: str
    module: str = ""
    place: str = ""
    weighted: bool = False
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Steps:
    """A whole network.

    Attributes:
        inputs: the shapes of its inputs, by name; the first is the main one.
        output: the name of the main result.
        outputs: the names of all results by their names outside, if there are several.
        heads: results of training only, of side heads.
        shapes: the shapes that parameters have in the language, if not those of the module.
    """

    inputs: Mapping[str, TensorShape]
    steps: tuple[Step, ...]
    output: str
    outputs: Mapping[str, str]
    heads: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    @property
    def main_input(self) -> str:
        """The name of the input that the first node reads."""
        return next(iter(self.inputs))


def ancestors(path: str) -> Iterator[str]:
    """The paths around a path and itself, the outermost first."""
    names = path.split(".") if path else []
    return (".".join(names[:length]) for length in range(1, len(names) + 1))


def parent_of(path: str) -> str:
    """The path of the level around a path."""
    return path.rpartition(".")[0]


def is_within(path: str, level: str) -> bool:
    """Whether a path is a level's own, or one below it."""
    return not level or path == level or path.startswith(f"{level}.")
