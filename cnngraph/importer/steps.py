"""What a traced module computes, in the language's ops: a list of steps in execution order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnngraph.errors import CnngraphError
from cnngraph.ops import OPS, Op
from cnngraph.shape import TensorShape

INPUT = "input"
"""The name of the network's input among the `reads` of steps."""


def new_op(kind: str, **fields: Any) -> Op:
    """An op by its name in specs."""
    return OPS[kind](**fields)


class UnsupportedError(CnngraphError):
    """Something that the language cannot say; the message names its place in the source."""


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


@dataclass(frozen=True)
class Steps:
    """A whole network.

    Attributes:
        output: the name of the main result.
        heads: other results, by the path of the module that computes them.
    """

    input: TensorShape
    steps: tuple[Step, ...]
    output: str
    heads: tuple[str, ...] = ()
