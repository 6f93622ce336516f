"""Colours and hatches: those of Okabe and Ito (2008), which colour-blind readers can tell apart."""

from __future__ import annotations

from cnngraph.drawing.text import FONTS, SIZE

BASE = {
    "conv": "#0072B2",
    "linear": "#D55E00",
    "pool": "#E69F00",
    "norm": "#009E73",
    "activation": "#F0E442",
    "shape": "#999999",
    "merge": "#000000",
    "other": "#CC79A7",
    "block": "#56B4E9",
    "input": "#999999",
}
"""The colour of each class of boxes."""

_HATCHES = {
    "linear": "M1.5 0V5M4 0V5",
    "pool": "M-1 1L1 -1M0 5L5 0M4 6L6 4",
    "norm": "M0 1.5H5M0 4H5",
    "activation": "M1 2.5H1.1M3.5 2.5H3.6",
    "shape": "M0 0L5 5",
    "other": "M0 5L5 0M0 0L5 5",
    "block": "M0 2.5H5M2.5 0V5",
}
"""Strokes in a square of 5 points; convolutions and inputs have none."""

_LIGHT = {"paper": "#ffffff", "ink": "#111111", "quiet": "#444444", "line": "#333333"}
_DARK = {"paper": "#14181d", "ink": "#f2f2f2", "quiet": "#c4c9cf", "line": "#b8bec6"}


def tone_of(dark: bool) -> str:
    """The class of a drawing, so that several can be in one page."""
    return "dark" if dark else "light"


def style_sheet(dark: bool) -> str:
    """The CSS of a drawing."""
    tone = _DARK if dark else _LIGHT
    paper, ink, line = tone["paper"], tone["ink"], tone["line"]
    steps = (mixed(ink, paper, 0.05), mixed(ink, paper, 0.10))
    rules = [
        f"text{{font:{SIZE:g}px {FONTS};fill:{ink}}}",
        f".quiet{{fill:{tone['quiet']}}}",
        ".bold{font-weight:bold}",
        f".paper{{fill:{paper}}}",
        f".step-0{{fill:{steps[0]}}}",
        f".step-1{{fill:{steps[1]}}}",
        f".card{{fill:{paper};stroke:{mixed(ink, paper, 0.35)};stroke-width:.6}}",
        f".frame{{fill:none;stroke:{line};stroke-width:.7;stroke-dasharray:3 2}}",
        f".fused{{fill:{mixed('#F0E442', paper, 0.55)}}}",
        f".wire{{fill:none;stroke:{line};stroke-width:.8;stroke-linejoin:round}}",
        *(f"{name}{{fill:{line}}}" for name in (".tip", ".dot", ".bar")),
        f".join{{fill:{paper};stroke:{line};stroke-width:.8}}",
        f".port{{fill:{ink}}}",
        f".port-text{{fill:{paper}}}",
        f".rule{{fill:{mixed(ink, paper, 0.35)}}}",
        ".box{stroke-width:.8}",
        f".hatch{{stroke:{paper};stroke-width:.9;fill:none}}",
    ]
    for name, colour in BASE.items():
        colour = mixed("#ffffff", colour, 0.25) if dark and name == "merge" else colour
        rules.append(f".box.{name}{{fill:{mixed(colour, paper, 0.16)};stroke:{colour}}}")
        rules.append(f".strip.{name}{{fill:{colour}}}")
    place = f".drawing.{tone_of(dark)}"
    return "\n".join(f"{place} {rule}" for rule in rules)


def patterns(used: set[str], dark: bool) -> str:
    """The hatches of the classes that are used, as SVG patterns."""
    return "".join(
        f'<pattern id="{tone_of(dark)}-hatch-{name}" '
        'width="5" height="5" patternUnits="userSpaceOnUse">'
        f'<path class="hatch" d="{_HATCHES[name]}"/></pattern>'
        for name in sorted(used & _HATCHES.keys())
    )


def mixed(colour: str, other: str, share: float) -> str:
    """`share` of the first colour and the rest of the second."""
    pairs = zip(_channels(colour), _channels(other), strict=True)
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


def _channels(colour: str) -> list[int]:
    return [int(colour[index : index + 2], 16) for index in (1, 3, 5)]
