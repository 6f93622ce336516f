"""What is wrong with the gradients of a network, and what usually helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from cnngraph.probing.measurement import LayerStatistics, Measurement

VANISHING = 1e-3
"""The first layer's relative gradient over the last one's, below which gradients vanish.

With a learning rate that changes the last layer by 1% in a step, the first one then changes by less
than 0.001%. In AlexNet-BN, which trains well, the relative gradients of the layers differ by a
factor of up to 233 (You et al., Large Batch Training of Convolutional Networks, table 2).
"""

ROUNDED = 2.0**-24
"""A relative gradient below which gradients vanish, whatever the other layers have.

Half of float32's distance between 1 and the next number: even a learning rate of 1 changes nothing.
"""

EXPLODING = 1e3
"""A relative gradient above which gradients explode; also the first layer's over the last one's.

Above it, even a learning rate of 0.001 changes a layer by more than its weights in one step.
"""

DEAD = 0.5
"""The share of a layer's units that may be dead: with more, less than half of its width is left."""

_SATURATING = ("sigmoid", "tanh", "hardsigmoid", "softsign")
_NORMS = ("batch_norm", "group_norm", "layer_norm", "instance_norm")


@dataclass(frozen=True)
class Finding:
    """Something that keeps a network from learning.

    Attributes:
        layer: the path of the layer where it shows.
        text: what was measured.
        help: what usually helps, the most promising first.
    """

    problem: Literal["vanishing", "exploding", "dead"]
    layer: str
    text: str
    help: tuple[str, ...]


def findings_of(found: Measurement) -> tuple[Finding, ...]:
    """The problems of a network; none if its gradients arrive."""
    checks = (_exploding(found), _vanishing(found), _dead(found))
    return tuple(finding for finding in checks if finding is not None)


def _ends(found: Measurement) -> tuple[LayerStatistics, LayerStatistics] | None:
    """The first and the last layer with weights."""
    layers = [layer for layer in found.layers if layer.weighted and layer.relative is not None]
    return (layers[0], layers[-1]) if len(layers) > 1 else None


def _exploding(found: Measurement) -> Finding | None:
    help = tuple(_against_explosion(found))
    for layer in found.layers:
        values = [layer.mean, layer.std, layer.gradient or 0.0, layer.relative or 0.0]
        if not all(map(isfinite, values)):
            return Finding("exploding", layer.path, f"{layer.path} is not finite", help)
    weighted = [layer for layer in found.layers if layer.weighted and layer.relative is not None]
    if not weighted:
        return None
    largest = max(weighted, key=lambda layer: layer.relative or 0.0)
    if (largest.relative or 0.0) > EXPLODING:
        text = f"the gradient of {largest.path} is {largest.relative:.0e} times its weights"
        return Finding("exploding", largest.path, text, help)
    first, last = weighted[0], weighted[-1]
    if last.relative and (first.relative or 0.0) > EXPLODING * last.relative:
        text = f"the gradient grows on its way to the input: {_against(first, last)}"
        return Finding("exploding", first.path, text, help)
    return None


def _vanishing(found: Measurement) -> Finding | None:
    ends = _ends(found)
    if ends is None:
        return None
    first, last = ends
    reached, start = first.relative or 0.0, last.relative or 0.0
    if reached < ROUNDED:
        text = f"the gradient of {first.path} is {reached:.0e} times its weights: nothing changes"
    elif reached < VANISHING * start:
        text = f"the gradient fades on its way to the input: {_against(first, last)}"
    else:
        return None
    return Finding("vanishing", first.path, text, tuple(_against_fading(found)))


def _against(first: LayerStatistics, last: LayerStatistics) -> str:
    ends = f"{first.relative:.1e} times the weights of {first.path}"
    return f"{ends}, {last.relative:.1e} times those of {last.path}"


def _dead(found: Measurement) -> Finding | None:
    layers = [layer for layer in found.layers if (layer.dead or 0.0) > DEAD]
    if not layers:
        return None
    worst = max(layers, key=lambda layer: layer.dead or 0.0)
    others = f", and in {len(layers) - 1} other layers too many" if len(layers) > 1 else ""
    text = f"{worst.dead:.0%} of the units of {worst.path} are zero for the whole batch{others}"
    return Finding("dead", worst.path, text, tuple(_against_death(found)))


def _has(found: Measurement, *kinds: str) -> list[str]:
    return [kind for kind in kinds if kind in found.kinds]


def _against_fading(found: Measurement) -> Iterator[str]:
    for kind in _has(found, *_SATURATING):
        yield f"relu in place of {kind}, whose slope is small wherever it saturates"
    if not _has(found, *_NORMS):
        yield "batch_norm after each convolution"
    if "add" not in found.kinds:
        yield "residual blocks: the gradient of a sum reaches both sides unchanged"
    yield "init: kaiming_normal for relu, xavier_uniform for sigmoid and tanh"


def _against_explosion(found: Measurement) -> Iterator[str]:
    if not _has(found, *_NORMS):
        yield "batch_norm after each convolution"
    elif "add" in found.kinds:
        yield "zero_last_norm: true, so that residual blocks begin as identities"
    else:
        yield "residual blocks: a deep stack of batch norms without them amplifies gradients"
    yield "smaller weights at the start: init: kaiming_normal"
    yield "a smaller learning rate at the start (warm-up), or gradients clipped by their norm"


def _against_death(found: Measurement) -> Iterator[str]:
    if not _has(found, *_NORMS):
        yield "batch_norm before each activation"
    yield "init: kaiming_normal, with biases of zero"
    yield "a smaller learning rate, if units die in training"
    yield "leaky_relu or silu, which pass a gradient everywhere"
