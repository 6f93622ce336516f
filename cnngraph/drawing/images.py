"""SVG to PNG and PDF, by cairosvg."""

from __future__ import annotations

from typing import Any

from cnngraph.errors import CnngraphError

_RESOLUTION = 300
"""Pixels per inch of a PNG."""


def to_png(svg: str) -> bytes:
    """A PNG with 300 pixels per inch. Raises `CnngraphError` if cairosvg is missing."""
    return _cairosvg("PNG").svg2png(bytestring=svg.encode(), scale=_RESOLUTION / 96)


def to_pdf(svg: str) -> bytes:
    """A PDF with lines and text. Raises `CnngraphError` if cairosvg is missing."""
    return _cairosvg("PDF").svg2pdf(bytestring=svg.encode())


def _cairosvg(format: str) -> Any:
    try:
        import cairosvg  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
    except ImportError:
        raise CnngraphError(
            f'{format} needs cairosvg, which is missing: pip install "cnngraph[draw]"; '
            "SVG and Mermaid need nothing"
        ) from None
    except OSError:
        raise CnngraphError(
            f"{format} needs the library cairo, which is missing: apt-get install libcairo2, or "
            "brew install cairo; SVG and Mermaid need nothing"
        ) from None
    return cairosvg
