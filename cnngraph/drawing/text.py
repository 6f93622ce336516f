"""How wide a text is, without a font library: an upper bound for the usual sans-serif fonts.

The widths are those of DejaVu Sans, the widest of the fonts in `FONTS`, so that a text that fits
here fits with each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
SIZE = 7.0
"""The size of the text in points: the least that journals accept."""
LINE = 8.6
"""The distance of lines in points."""

_ASCII = """
318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636
636 337 337 838 838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603
787 695 635 611 732 684 989 685 611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278
278 579 278 974 634 612 635 635 411 521 392 634 592 818 592 592 525 636 337 636 838"""
_ASCII_BOLD = """
348 456 521 838 696 1002 872 306 457 457 523 838 380 415 380 365 696 696 696 696 696 696 696 696 696
696 400 400 838 838 838 580 1000 774 762 734 830 683 683 821 837 372 372 775 637 995 837 850 733 850
770 720 682 812 774 1103 771 724 725 457 365 457 838 500 500 675 716 593 716 678 435 716 712 343 343
665 343 1042 712 687 716 716 493 595 478 712 652 924 645 652 582 712 365 712 838"""
_WIDTHS = [
    dict(zip(map(chr, range(32, 127)), map(int, widths.split()), strict=True))
    | {"·": 380, "×": 838, "…": 1000, "–": 500}
    for widths in (_ASCII, _ASCII_BOLD)
]
_OTHERS = 1000
"""For a character outside of the table: the width of the widest letters, in 1/1000 of the size."""


def width(text: str, *, bold: bool = False, size: float = SIZE) -> float:
    """The width of a text in points."""
    widths = _WIDTHS[bold]
    return sum(widths.get(character, _OTHERS) for character in text) * size / 1000


def shorten(text: str, limit: float, *, bold: bool = False, size: float = SIZE) -> str:
    """The text, cut in its middle if it is wider than `limit`: `a very…name`."""
    if width(text, bold=bold, size=size) <= limit:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = (kept + 1) // 2
        start, end = text[:head], text[len(text) - kept + head :]
        cut = f"{start.rstrip(' ….')}…{end.lstrip(' ….')}"
        if width(cut, bold=bold, size=size) <= limit:
            return cut
    return "…"


def wrap(text: str, limit: float, *, bold: bool = False) -> list[str]:
    """The text in lines no wider than `limit`, broken after spaces, underscores and dots."""
    lines: list[str] = []
    line = ""
    for piece in _pieces(text):
        if line and width((line + piece).rstrip(), bold=bold) > limit:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return [shorten(item, limit, bold=bold) for item in (*lines, line.rstrip())]


def _pieces(text: str) -> Iterator[str]:
    breaks = [index + 1 for index, character in enumerate(text) if character in " _."]
    for start, end in pairwise([0, *breaks, len(text)]):
        if start < end:
            yield text[start:end]


def widest(lines: Iterable[str], *, bold: bool = False) -> float:
    """The width of the widest line, 0 without lines."""
    return max((width(line, bold=bold) for line in lines), default=0.0)
