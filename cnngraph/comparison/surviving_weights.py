"""Which weights of a network another one can take over, without building either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnngraph.graph import Graph
from cnngraph.graph.alignment import Unit, align


@dataclass(frozen=True)
class SurvivingWeights:
    """What `load_weights(..., transfer=True)` takes over. Keys are those of the `state_dict`s.

    Attributes:
        kept: keys of both networks with the same shape.
        renamed: key of the new network -> key of the old one, if different.
        lost: keys of the old network that are not used.
        new: keys of the new network that stay as they are initialised.
    """

    kept: tuple[str, ...]
    renamed: Mapping[str, str]
    lost: tuple[str, ...]
    new: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kept": [*self.kept],
            "renamed": dict(self.renamed),
            "lost": [*self.lost],
            "new": [*self.new],
        }


def surviving_weights(old: Graph, new: Graph) -> SurvivingWeights:
    """The weights and buffers that can be loaded from a file of `old` into `new`."""
    there, here = _units(old), _units(new)
    alignment = align([*here.values()], [*there.values()], ordered=True)
    used = {*alignment.origins.values()}
    origins: dict[str, str] = {}
    for path, unit in here.items():
        origin = alignment.origins.get(path)
        if origin is not None:
            origins |= {_key(path, leaf): _key(origin, leaf) for leaf in unit.shapes}
        elif path in there and path not in used and path not in alignment.ambiguous:
            origins |= {key: key for key in _in_common(unit, there[path])}
    keys = [_key(path, leaf) for path, unit in here.items() for leaf in unit.shapes]
    taken = {*origins.values()}
    return SurvivingWeights(
        kept=tuple(key for key in keys if origins.get(key) == key),
        renamed={key: origins[key] for key in keys if origins.get(key, key) != key},
        lost=tuple(
            key
            for path, unit in there.items()
            for leaf in unit.shapes
            if (key := _key(path, leaf)) not in taken
        ),
        new=tuple(key for key in keys if key not in origins),
    )


def _in_common(unit: Unit, there: Unit) -> list[str]:
    """The tensors of a module that has gained or lost some, such as a bias."""
    shared = unit.shapes.keys() & there.shapes.keys()
    if not unit.may_be(there) or any(unit.shapes[leaf] != there.shapes[leaf] for leaf in shared):
        return []
    return [_key(unit.path, leaf) for leaf in unit.shapes if leaf in shared]


def _units(graph: Graph) -> dict[str, Unit]:
    """The modules with tensors by path, in order, as their `state_dict` has them."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    kinds: dict[str, str] = {}
    for node in graph.nodes:
        if node.shared:
            continue
        inputs = graph.input_shapes(node)
        for name, shape in {**node.op.parameters(*inputs), **node.op.buffers(*inputs)}.items():
            module, leaf = (node.path, name) if name else _split(node.path)
            shapes.setdefault(module, {})[leaf] = shape
            kinds[module] = (node.op.module_class or node.op.kind).rpartition(".")[2]
    return {path: Unit(path, held, kinds[path]) for path, held in shapes.items()}


def _split(path: str) -> tuple[str, str]:
    module, _, leaf = path.rpartition(".")
    return module, leaf


def _key(module: str, leaf: str) -> str:
    return f"{module}.{leaf}" if module else leaf
