"""The result of `bench` as a bar chart. Needs matplotlib, the extra `plots`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnngraph.bench.networks import NetworkBench
from cnngraph.bench.report import headline, precise
from cnngraph.bench.variants import always
from cnngraph.report.numbers import short
from cnngraph.report.plots import new_figure

OURS, OTHERS = "#2a6f97", "#b8c4cc"


def save_plot(bench: NetworkBench, path: Path, format: str) -> None:
    """Draws time and peak memory of each variant, with the floors as dashed lines.

    Args:
        bench: the result.
        path: the file to write.
        format: `png` or `svg`.
    """
    rows = [(row.variant.name, row, row.seconds) for row in bench.rows if row.seconds is not None]
    figure = new_figure(11, 1.6 + 0.42 * max(1, len(rows)))
    figure.suptitle(headline(bench))
    time, memory = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    ours = always(bench.work.device)
    colours = [OURS if name in ours else OTHERS for name, _, _ in rows]
    medians = [seconds.median for _, _, seconds in rows]
    below = [seconds.median - seconds.quartiles[0] for _, _, seconds in rows]
    above = [seconds.quartiles[1] - seconds.median for _, _, seconds in rows]
    caps = {"ecolor": "#555555", "capsize": 2}
    time.barh(places, medians, color=colours, xerr=[below, above], error_kw=caps)
    for place, (name, _, seconds) in enumerate(rows):
        colour = "white" if name in ours else "black"
        time.text(0, place, f"  {precise(seconds.median)}", va="center", color=colour)
    _draw_floors(time, bench)
    time.set_yticks(places, [name for name, _, _ in rows])
    time.invert_yaxis()
    time.set_xlabel("seconds per step, median and quartiles")
    peaks = [row.tensor_bytes or 0 for _, row, _ in rows]
    bars = memory.barh(places, [value / 1e9 for value in peaks], color=colours)
    memory.bar_label(bars, [f" {short(value)}B" if value else " unknown" for value in peaks])
    memory.set_xlabel("peak of tensors, GB")
    memory.margins(x=0.2)
    for axes in (time, memory):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format=format, dpi=120)


def _draw_floors(axes: Any, bench: NetworkBench) -> None:
    for seconds, name, style in (
        (bench.floor.seconds, "arithmetic at the peak rate", "--"),
        (bench.floor.layers_seconds, "layers timed alone", ":"),
    ):
        if seconds:
            label = f"{name}: {precise(seconds)}"
            axes.axvline(seconds, color="#c1440e", linestyle=style, linewidth=1.2, label=label)
    if bench.floor.seconds:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.25)}
        axes.legend(**below, ncols=2, frameon=False, fontsize="small")
