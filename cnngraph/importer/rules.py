"""The rules by which calls of torch become ops: where they are registered, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from cnngraph.importer.steps import new_op
from cnngraph.importer.values import Recorder, Value, Weight

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
"""A function of torch, or the name of a method -> its rule, of a recorder and the arguments."""


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Decorator: makes a function the rule of these functions and methods."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def owner(record: Recorder, weight: Any, what: str) -> str:
    """The path of the module with this weight."""
    own = None if not isinstance(weight, Weight) else record.root.get_submodule(weight.module)
    if own is None or weight.tensor.shape != getattr(own, "weight", weight.tensor).shape:
        raise record.unsupported(f"a {what} with a weight that is computed")
    return weight.module


def sizes(value: Any, rank: int) -> Any:
    """A size for each of `rank` axes, as a tuple; a word or `None` is returned unchanged."""
    if isinstance(value, str) or value is None:
        return value
    items = tuple(value) if isinstance(value, Sequence | torch.Size) else (value,)
    return items * rank if len(items) == 1 else items


def result_shape(record: Recorder) -> tuple[int, ...]:
    """The shape of the tensor that the call returns."""
    return tuple(record.node.meta["value"].shape)


def ranked(kind: str, value: Value) -> str:
    """The op for a kind of value: `conv` is `conv2d` for maps, and `conv1d` for signals."""
    return f"{kind}{max(1, value.rank)}d"


def apply(record: Recorder, kind: str, input: Value, **fields: Any) -> Value:
    """A step of an op without weights."""
    return record.step(new_op(kind, **fields), input)
