"""Classes of networks whose `forward` takes the inputs of the spec by their names.

A `forward` with a real signature lets callers pass inputs by name, and torch.fx, torch.export and
torch.jit name them.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import nn

from cnngraph.graph import INPUT

_SEPARATOR = "__"
"""Stands between the names in the name of a class; no input's name contains it."""


def with_inputs(base: type[nn.Module], names: Sequence[str]) -> type[nn.Module]:
    """A subclass such as `Network__rgb__depth`; `base` itself for one input without a name.

    `base` defines `_call`, which takes the inputs in order.
    """
    return base if tuple(names) == (INPUT,) else _subclass(base, tuple(names))


@cache
def _subclass(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    listed = ", ".join(names)
    name = _SEPARATOR.join((base.__name__, *names))
    source = f"def forward(self, {listed}):\n    return self._call({listed})\n"
    filename = f"<cnngraph {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    members: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), members)
    return type(name, (base,), {"forward": members["forward"], "__module__": base.__module__})


def class_called(name: str, bases: Mapping[str, Any]) -> type[nn.Module]:
    """The class that `with_inputs` calls `name`. Raises `AttributeError` if there is none."""
    of, *names = name.split(_SEPARATOR)
    base = bases.get(of)
    if not names or not isinstance(base, type) or not issubclass(base, nn.Module):
        raise AttributeError(name)
    return with_inputs(base, names)
