"""The levels of a compiled network: modules whose generated `forward` calls their children.

A level calls its children like any module, so hooks, wrappers and replaced children work. Only if
a fused operator spans several levels, the code skips the calls of the levels in between and uses
their children directly. It calls the levels as soon as one of them has hooks or was changed.
"""

from __future__ import annotations

import linecache
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.nn.watched import is_traced, is_watched

Inlined = tuple[tuple[str, "Code"], ...]
"""The children whose calls a level's code skips, by name, each with the code it must have."""


class Code:
    """The generated code of a level, shared by all levels of the same structure.

    Attributes:
        title: the network's name and the level's path, shown in tracebacks.
        source: the text of `forward`, and of `forward_by_level` if there are inlined children.
        names: the children's names, in order.
        inlined: the children whose calls `forward` skips, using their own children directly.
        functions: the functions that the text calls, by name.
        forward: a function of a level and its inputs.
        forward_by_level: the same, but it calls every child.
    """

    def __init__(
        self,
        title: str,
        source: str,
        names: tuple[str, ...],
        inlined: Inlined,
        functions: Mapping[str, Any],
    ) -> None:
        self.title = title
        self.source = source
        self.names = names
        self.inlined = inlined
        self.functions = dict(functions)
        filename = f"<cnngraph {title} {id(self):x}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        weakref.finalize(self, linecache.cache.pop, filename, None).atexit = False
        namespace: dict[str, Any] = {"torch": torch, **functions}
        exec(compile(source, filename, "exec"), namespace)
        self.forward: Callable[..., Any] = namespace["forward"]
        self.forward_by_level: Callable[..., Any] = namespace.get("forward_by_level", self.forward)

    def reaches_through(self, level: nn.Module) -> bool:
        """Whether the inlined children are unchanged and have no hooks."""
        for name, code in self.inlined:
            child: Any = _descendant(level, name) if "." in name else level._modules.get(name)
            if (
                type(child) not in _LEVELS
                or (child._code is not code and child._code != code)
                or is_watched(child)
                or tuple(child._modules) != code.names
                or not code.reaches_through(child)
            ):
                return False
        return True

    def __call__(self, level: nn.Module, *inputs: Any) -> Any:
        if self.inlined and (
            _has_any_global_hook() or is_traced() or not self.reaches_through(level)
        ):
            return self.forward_by_level(level, *inputs)
        return self.forward(level, *inputs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash(self.source)

    def _state(self) -> tuple[Any, ...]:
        return self.source, self.names, self.inlined, self.functions

    def __deepcopy__(self, memo: object) -> Code:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Code, (self.title, *self._state())


def _descendant(module: nn.Module | None, path: str) -> nn.Module | None:
    for name in path.split("."):
        module = None if module is None else module._modules.get(name)
    return module


class Level(nn.Module):
    """A composite or block of a spec as a module."""

    _kind = "Level"
    _code: Code

    def forward(self, x: Tensor) -> Any:
        return self._code(self, x)

    @property
    def code(self) -> str:
        """The source of the generated `forward`."""
        return self._code.source

    def _get_name(self) -> str:
        return self._kind


class JoinLevel(Level):
    """A level with several inputs, or none."""

    def forward(self, *inputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._code(self, *inputs)


class Sequential(nn.Sequential):
    """A level whose children form a chain. It runs fused unless its list of children is changed."""

    _code: Code | None = None

    def forward(self, input: Any) -> Any:
        if self._code is None or tuple(self._modules) != self._code.names:
            return super().forward(input)
        return self._code(self, input)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    @property
    def code(self) -> str:
        """The source of the generated `forward`."""
        return "" if self._code is None else self._code.source


_LEVELS = frozenset({Level, JoinLevel, Sequential})
