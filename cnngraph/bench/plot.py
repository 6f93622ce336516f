"""What `bench` found as a bar chart. Needs matplotlib, the extra `plots`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnngraph.bench.networks import NetworkBench
from cnngraph.bench.report import headline, precise
from cnngraph.bench.variants import always
from cnngraph.errors import CnngraphError
from cnngraph.report.numbers import short

FORMATS = (".png", ".svg")
OURS, OTHERS = "#2a6f97", "#b8c4cc"


def require_matplotlib() -> None:
    """Raises `CnngraphError` where it is not installed: better before the measurement than after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CnngraphError("a chart needs matplotlib: pip install 'cnngraph[plots]'") from None


def save_plot(bench: NetworkBench, path: Path, format: str) -> None:
    """Time and peak memory of each contender, as bars; dashed lines are the floors. `format` is `png` or `svg`."""
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = [row for row in bench.rows if row.seconds is not None]
    figure = Figure(figsize=(11, 1.6 + 0.42 * max(1, len(rows))), layout="constrained")
    figure.suptitle(headline(bench))
    time, memory = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    names = [row.contender.name for row in rows]
    ours = always(bench.work.device)
    colours = [OURS if name in ours else OTHERS for name in names]
    medians = [row.seconds.median for row in rows if row.seconds]
    spread = [row.seconds.quartiles for row in rows if row.seconds]
    sides = [
        [median - low for median, (low, _) in zip(medians, spread, strict=True)],
        [high - median for median, (_, high) in zip(medians, spread, strict=True)],
    ]
    time.barh(places, medians, color=colours, xerr=sides, error_kw={"ecolor": "#555555", "capsize": 2})
    for place, name, median in zip(places, names, medians, strict=True):
        time.text(0, place, f"  {precise(median)}", va="center", color="white" if name in ours else "black")
    _floors(time, bench)
    time.set_yticks(places, names)
    time.invert_yaxis()
    time.set_xlabel("seconds a step, median and middle half")
    bytes = [row.tensor_bytes or 0 for row in rows]
    bars = memory.barh(places, [value / 1e9 for value in bytes], color=colours)
    memory.bar_label(bars, [f" {short(value)}B" if value else " not known" for value in bytes])
    memory.set_xlabel("peak of tensors, GB")
    memory.margins(x=0.2)
    for axes in (time, memory):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format=format, dpi=120)


def _floors(axes: Any, bench: NetworkBench) -> None:
    for seconds, name, style in (
        (bench.floor.seconds, "arithmetic at the peak rate", "--"),
        (bench.floor.layers_seconds, "layers timed alone", ":"),
    ):
        if seconds:
            axes.axvline(seconds, color="#c1440e", linestyle=style, linewidth=1.2, label=f"{name}: {precise(seconds)}")
    if bench.floor.seconds:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2, frameon=False, fontsize="small")
