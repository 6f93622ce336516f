"""The statistics of each layer as a plot. Needs matplotlib, the extra `plots`."""

from __future__ import annotations

from math import isfinite
from typing import Any

from cnngraph.probing.measurement import Measurement
from cnngraph.probing.verdict import findings_of
from cnngraph.report.plots import new_figure

_MOST_NAMED = 40
_COLOURS = {"std": "#0072B2", "dead": "#D55E00", "gradient": "#009E73", "relative": "#CC79A7"}
_MARKS = {"std": "o", "dead": "s", "gradient": "^", "relative": "D"}
"""Colours of Okabe and Ito, and a mark for each, so that the lines can be told apart in grey."""


def probe_figure(found: Measurement) -> Any:
    """A figure with panels for outputs, for dead units if any can die, and for gradients."""
    figure = new_figure(max(7.0, min(14.0, 0.22 * len(found.layers) + 3)), 7.2)
    problems = [f"{finding.problem} at {finding.layer}" for finding in findings_of(found)]
    figure.suptitle(f"{found.network}, {found.weights}: {', '.join(problems) or 'healthy'}")
    places = [index for index, layer in enumerate(found.layers) if layer.dead is not None]
    heights = [3, 1.3, 3] if places else [3, 3]
    panels = figure.subplots(len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights})
    outputs, gradients = panels[0], panels[-1]
    _line(outputs, found, "std", "standard deviation of the output")
    _line(gradients, found, "gradient", "gradient by the output")
    _line(gradients, found, "relative", "gradient by the weights / weights")
    for axes, name in ((outputs, "output"), (gradients, "gradient")):
        axes.set_yscale("log")
        axes.set_ylabel(name)
        axes.legend(loc="best", frameon=False, fontsize="small")
    if places:
        shares = [100 * (layer.dead or 0.0) for layer in found.layers if layer.dead is not None]
        panels[1].bar(places, shares, color=_COLOURS["dead"])
        panels[1].set(ylabel="dead units, %", ylim=(0, 100))
    _name_layers(gradients, found)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _line(axes: Any, found: Measurement, name: str, label: str) -> None:
    points: list[tuple[int, float | None]] = [
        (index, getattr(layer, name))
        for index, layer in enumerate(found.layers)
        if layer.weighted or name != "relative"
    ]
    shown = [(index, y) for index, y in points if y is not None and y > 0 and isfinite(y)]
    axes.plot(
        [index for index, _ in shown], [y for _, y in shown],
        color=_COLOURS[name], marker=_MARKS[name], markersize=3.5, linewidth=1.2, label=label,
    )  # fmt: skip


def _name_layers(axes: Any, found: Measurement) -> None:
    every = -(-len(found.layers) // _MOST_NAMED)
    places = range(0, len(found.layers), every)
    layers = [found.layers[place] for place in places]
    unnamed = [layer.path.rpartition(".")[2].isdigit() for layer in layers]
    names = [
        f"{layer.path} {layer.kind}" if shown else layer.path
        for layer, shown in zip(layers, unnamed, strict=True)
    ]
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set_xlim(-1, len(found.layers))
