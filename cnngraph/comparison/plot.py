"""Networks as a plot: accuracy against costs, and all figures as bars. Needs matplotlib."""

from __future__ import annotations

from typing import Any

from cnngraph.comparison.labels import place_labels
from cnngraph.comparison.networks import Compared, Networks, names_of
from cnngraph.report.numbers import plural, short, size
from cnngraph.report.plots import new_figure

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
"""Those of Okabe and Ito."""

_LARGEST = 900.0
"""Area of the largest bubble in square points."""


def comparison_figure(found: Networks) -> Any:
    """A figure of bars, and above it bubbles if the accuracy of two networks is known.

    A bubble's place is a cost and the accuracy, its area is the number of parameters, as in
    Canziani et al., An Analysis of Deep Neural Network Models for Practical Applications.
    """
    known = [item for item in found.networks if item.top1 is not None]
    measured = found.threads is not None
    bars = 0.9 + 0.24 * len(found.networks)
    bubbles = 4.2 if len(known) > 1 else 0.0
    figure = new_figure(11.0, bars + bubbles)
    colours = {
        item.name: _COLOURS[index % len(_COLOURS)] for index, item in enumerate(found.networks)
    }
    if not bubbles:
        _draw_bars(figure, found, colours, measured)
        return figure
    upper, lower = figure.subfigures(2, 1, height_ratios=[bubbles, bars])
    panels = _draw_bubbles(upper, found, known, colours)
    _draw_bars(lower, found, colours, measured)
    for axes, values in panels:
        place_labels(axes, values, *_places(known), names_of(known))
    return figure


def _places(known: list[Compared]) -> tuple[list[float], list[float]]:
    """The accuracy of each network, and the area of its bubble."""
    most = max(item.params for item in known)
    areas = [max(12.0, _LARGEST * item.params / most) for item in known]
    return [item.top1 or 0.0 for item in known], areas


def _draw_bubbles(
    figure: Any, found: Networks, known: list[Compared], colours: dict[str, str]
) -> list[tuple[Any, list[float]]]:
    """The panels, and the costs on their horizontal axes."""
    from matplotlib.ticker import LogLocator, NullFormatter

    step = f"memory of a step of {found.batch_size} images, GB"
    costs = [
        ("MACs of an image, G", [item.macs / 1e9 for item in known]),
        (step, [item.memory / 1e9 for item in known]),
    ]
    if found.threads is not None:
        speeds = [item.images_per_second or 0.0 for item in known]
        costs.append((f"images per second ({plural(found.threads, 'thread')})", speeds))
    panels = figure.subplots(1, len(costs), sharey=True)
    accuracies, areas = _places(known)
    for axes, (title, values) in zip(panels, costs, strict=True):
        axes.scatter(
            values, accuracies, s=areas, c=[colours[item.name] for item in known], alpha=0.55,
            edgecolors="black", linewidths=0.6,
        )  # fmt: skip
        axes.set(xscale="log", xlabel=title)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.16)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("top-1 accuracy of ImageNet, %")
    most = short(max(item.params for item in known))
    panels[0].set_title(f"area: parameters, {most} the largest", fontsize="small", loc="left")
    return [(axes, values) for axes, (_, values) in zip(panels, costs, strict=True)]


def _draw_bars(figure: Any, found: Networks, colours: dict[str, str], measured: bool) -> None:
    networks = found.networks
    quantities: list[tuple[str, list[float], list[str]]] = [
        ("parameters", [item.params for item in networks], [short(i.params) for i in networks]),
        ("MACs", [item.macs for item in networks], [short(item.macs) for item in networks]),
        ("memory of a step", [i.memory for i in networks], [size(i.memory) for i in networks]),
    ]
    if measured:
        speeds = [item.images_per_second or 0.0 for item in networks]
        quantities.append(("images per second", speeds, [f"{speed:.3g}" for speed in speeds]))
    panels = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    places = range(len(networks))
    for axes, (title, values, labels) in zip(panels, quantities, strict=True):
        bars = axes.barh(places, values, color=[colours[item.name] for item in networks], alpha=0.7)
        axes.bar_label(bars, labels, padding=3, fontsize=8)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xticks([])
        axes.margins(x=0.3)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    panels[0].set_yticks(places, names_of(networks), fontsize=8)
    panels[0].invert_yaxis()
