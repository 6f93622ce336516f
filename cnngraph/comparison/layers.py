"""The layers of two networks, matched by name and then by structure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from operator import attrgetter
from typing import Any, Literal

from cnngraph.graph import Graph
from cnngraph.graph.cost import node_cost
from cnngraph.graph.stages import result_values
from cnngraph.shape import TensorShape

Status = Literal["added", "removed", "changed", "resized", "renamed", "same"]


@dataclass(frozen=True)
class Layer:
    """A node of a network, and what it costs for one image.

    Attributes:
        arguments: as torch's module takes them, defaults and the number of input channels included.
        activations: bytes of its result in float32; 0 for a view.
    """

    path: str
    kind: str
    arguments: Mapping[str, Any]
    inputs: tuple[TensorShape, ...]
    shape: TensorShape
    params: int
    macs: int
    activations: int


@dataclass(frozen=True)
class LayerChange:
    """A layer before and after; None where there is none. Not both are None."""

    old: Layer | None
    new: Layer | None

    @cached_property
    def arguments(self) -> dict[str, tuple[Any, Any]]:
        """Each argument that differs: its value before and after, None if there is none."""
        if self.old is None or self.new is None:
            return {}
        old, new = self.old.arguments, self.new.arguments
        if self.old.kind != self.new.kind:  # the arguments of another op say nothing
            return {}
        return {
            name: (old.get(name), new.get(name))
            for name in {**old, **new}
            if old.get(name) != new.get(name)
        }

    @property
    def status(self) -> Status:
        """What happened to the layer.

        `changed` is another op or other arguments, `resized` only another output shape, and
        `renamed` only another path.
        """
        if self.old is None:
            return "added"
        if self.new is None:
            return "removed"
        if self.arguments or self.old.kind != self.new.kind:
            return "changed"
        if self.old.shape != self.new.shape:
            return "resized"
        return "same" if self.old.path == self.new.path else "renamed"


def layers_of(graph: Graph) -> list[Layer]:
    """The layers of a graph, in order."""
    return [_layer(graph, index) for index in range(len(graph.nodes))]


def _layer(graph: Graph, index: int) -> Layer:
    node = graph.nodes[index]
    shapes, cost = graph.input_shapes(node), node_cost(graph, node)
    return Layer(
        path=node.path,
        kind=node.op.kind,
        arguments=node.op.arguments(*shapes),
        inputs=shapes,
        shape=node.shape,
        params=cost.params,
        macs=cost.macs,
        activations=4 * result_values(graph, node),
    )


@dataclass(frozen=True)
class _Part:
    """A layer, or all layers of a block: what a path has at one level.

    Attributes:
        name: the path up to this level.
    """

    name: str
    layers: tuple[Layer, ...]

    @property
    def is_layer(self) -> bool:
        return self.layers[0].path == self.name

    @cached_property
    def role(self) -> Hashable:
        """Its name but for numbers, which shift, and its kind; of a block, those of its layers."""
        names = ["#" if name.isdigit() else name for name in self.name.split(".")]
        return ".".join(names), tuple(
            (layer.path.removeprefix(self.name), layer.kind) for layer in self.layers
        )

    @cached_property
    def structure(self) -> Hashable:
        """All but the numbers in its name."""
        return self.role, tuple(
            (str(layer.arguments), layer.inputs, layer.shape) for layer in self.layers
        )

    @cached_property
    def exact(self) -> Hashable:
        """Everything."""
        return self.name, self.structure


_Key = Callable[[_Part], Hashable]
_Pair = tuple[_Part | None, _Part | None]
_KEYS: tuple[_Key, ...] = (
    attrgetter("exact"),
    attrgetter("structure"),
    attrgetter("role"),
    attrgetter("name"),
)
"""What two parts may have in common, the most first."""


def match_layers(old: Sequence[Layer], new: Sequence[Layer], level: int = 1) -> list[LayerChange]:
    """The layers of both networks in order, matched level by level.

    At each level, parts are matched as `diff` matches lines: those that agree in everything first,
    then, between these, those that agree in less. If everything was scaled, an accidental agreement
    would be in the way, so that matches that begin with less agreement are tried too: the match
    with the most pairs counts, and among these the match with the most equal pairs. Then the layers
    of each pair are matched.
    """
    ours, theirs = _parts(new, level), _parts(old, level)
    found = [_matched(theirs, ours, _KEYS[first:]) for first in range(len(_KEYS))]
    changes: list[LayerChange] = []
    for before, after in max(found, key=_score):
        if before and after and before.is_layer == after.is_layer:
            both = before.layers, after.layers
            changes += (
                map(LayerChange, *both)
                if before.is_layer
                else match_layers(*both, level + 1)
            )  # fmt: skip
        else:
            changes += (LayerChange(layer, None) for layer in (before.layers if before else ()))
            changes += (LayerChange(None, layer) for layer in (after.layers if after else ()))
    return changes


def _parts(layers: Sequence[Layer], level: int) -> list[_Part]:
    parts: dict[str, list[Layer]] = {}
    for layer in layers:
        name = ".".join(layer.path.split(".")[:level])
        parts.setdefault(name, []).append(layer)
    return [_Part(name, tuple(held)) for name, held in parts.items()]


def _score(pairs: Sequence[_Pair]) -> tuple[int, int, int]:
    unmatched = same = equal = 0
    for before, after in pairs:
        if before is None or after is None:
            unmatched += len((before or after).layers)  # pyright: ignore[reportOptionalMemberAccess]
        else:
            same += len(before.layers) * (before.exact == after.exact)
            equal += len(before.layers) * (before.structure == after.structure)
    return -unmatched, equal, same


def _matched(old: Sequence[_Part], new: Sequence[_Part], keys: Sequence[_Key]) -> list[_Pair]:
    if not keys or not old or not new:
        return [*((part, None) for part in old), *((None, part) for part in new)]
    key, *others = keys
    matcher = SequenceMatcher(None, [*map(key, old)], [*map(key, new)], autojunk=False)
    pairs: list[_Pair] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            pairs += zip(old[i:i_end], new[j:j_end], strict=True)
        else:
            pairs += _matched(old[i:i_end], new[j:j_end], others)
    return pairs
