"""What all plots need: matplotlib, which is an extra, and a file that it can write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnngraph.atomic_write import atomic_write
from cnngraph.errors import CnngraphError

FORMATS = (".png", ".svg")


def require_matplotlib() -> None:
    """Raises `CnngraphError` if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise CnngraphError("a chart needs matplotlib: pip install 'cnngraph[plots]'") from None


def require_plot_file(path: Path) -> None:
    """Raises `CnngraphError` if no plot can be at `path`, before anything is measured.

    Matplotlib may still be missing: without it, everything but the plot is made.
    """
    if path.suffix.lower() not in FORMATS:
        raise CnngraphError(f"a chart is a {' or '.join(FORMATS)} file, not {path}")
    if not path.resolve().parent.is_dir():
        raise CnngraphError(f"cannot write {path}: the folder {path.parent} does not exist")


def new_figure(width: float, height: float) -> Any:
    """A figure of matplotlib, in inches. Raises `CnngraphError` if it is missing."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as .png or .svg. Raises `CnngraphError` if the file cannot be written."""
    require_plot_file(path)
    format = path.suffix[1:].lower()
    atomic_write(path, lambda file: figure.savefig(file, format=format, dpi=120))
