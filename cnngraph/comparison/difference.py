"""The difference of two networks: their layers, matched, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cnngraph.comparison.layers import LayerChange, layers_of, match_layers
from cnngraph.comparison.surviving_weights import SurvivingWeights, surviving_weights
from cnngraph.graph import Graph

COSTS = ("params", "macs", "activations")
"""The costs of a layer."""


@dataclass(frozen=True)
class Difference:
    """What differs between two networks.

    Attributes:
        names: the specs as given, the old one first.
        old, new: the networks.
    """

    names: tuple[str, str]
    old: Graph
    new: Graph

    @cached_property
    def layers(self) -> list[LayerChange]:
        """All layers of both networks in order, matched."""
        return match_layers(layers_of(self.old), layers_of(self.new))

    @property
    def changes(self) -> list[LayerChange]:
        """The layers that are not the same in both networks."""
        return [change for change in self.layers if change.status != "same"]

    @cached_property
    def weights(self) -> SurvivingWeights:
        """Which weights of the old network the new one can load."""
        return surviving_weights(self.old, self.new)

    @cached_property
    def totals(self) -> dict[str, tuple[int, int]]:
        """Parameters, multiply-accumulates and bytes of activations for one image, old and new.

        Activations are the results of all layers in float32; side heads count in each.
        """
        sides = [
            [layer for layer in layers if layer is not None]
            for layers in zip(*((change.old, change.new) for change in self.layers), strict=True)
        ]
        old, new = (
            {name: sum(getattr(layer, name) for layer in side) for name in COSTS} for side in sides
        )
        return {name: (old[name], new[name]) for name in COSTS}
