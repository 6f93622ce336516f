"""The inputs of a module that is imported: their names and shapes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cnngraph.errors import CnngraphError, closest, listing
from cnngraph.shape import TensorShape

Input = Tensor | Sequence[int]
"""A tensor with its batch, or the shape of one image without it."""


def input_shapes(
    module: nn.Module, input: Input | Sequence[Input] | Mapping[str, Input]
) -> dict[str, TensorShape]:
    """The shapes of the inputs, by the names of the arguments of the module's `forward`.

    Those that its `*args` take are named `args_0`, `args_1` and so on.

    Raises `CnngraphError` if it has no such arguments.
    """
    arguments = inspect.signature(module.forward).parameters.values()
    others = {argument.kind: argument.name for argument in arguments}
    names = [each.name for each in arguments if each.kind is each.POSITIONAL_OR_KEYWORD]
    if isinstance(input, Mapping):
        for name in input:
            if name not in names and inspect.Parameter.VAR_KEYWORD not in others:
                near = closest(name, names)
                hint = f"; did you mean `{near}`?" if near else f", it has {_listed(names)}"
                raise CnngraphError(f"the module's `forward` has no argument `{name}`{hint}")
        ordered = dict.fromkeys([*(name for name in names if name in input), *input])
        return {name: _shape_of(input[name]) for name in ordered}
    alone = isinstance(input, Tensor) or all(isinstance(size, int) for size in input)
    items: Any = [input] if alone else input
    if inspect.Parameter.VAR_POSITIONAL in others:
        rest = others[inspect.Parameter.VAR_POSITIONAL]
        names += [f"{rest}_{index}" for index in range(len(items) - len(names))]
    if len(items) > len(names):
        raise CnngraphError(
            f"the module's `forward` takes only {_listed(names)}, but {len(items)} inputs are given"
        )
    return {name: _shape_of(item) for name, item in zip(names, items, strict=False)}


def input_names(module: nn.Module, names: Sequence[str]) -> list[str]:
    """The names of the inputs in the spec, which its nodes cannot have."""
    if len(names) == 1:
        return ["input"]
    taken = {key.partition(".")[0] for key in module.state_dict()}
    return [f"{name}_input" if name in taken else name for name in names]


def _listed(names: Sequence[str]) -> str:
    return listing([f"`{name}`" for name in names])


def _shape_of(item: Any) -> TensorShape:
    return TensorShape(item.shape[1:] if isinstance(item, Tensor) else item)
