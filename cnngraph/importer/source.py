"""What the spec takes over from the module that is imported, apart from its computation."""

from __future__ import annotations

from torch import nn


class Source:
    """The module that is imported."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root

    def class_of(self, path: str) -> str:
        """The name of the class of the module at a path."""
        return self._root.get_submodule(path)._get_name()

    def children_of(self, path: str) -> list[str]:
        """The names of its parameters and children, in the order of the `state_dict`."""
        module = self._root.get_submodule(path)
        keys = dict.fromkeys(key.partition(".")[0] for key in module.state_dict())
        return list(keys)
