"""`cnngraph catalog`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.errors import CnngraphError
from cnngraph.report import terminal


@app.command(
    epilog="""\b
Examples:
  cnngraph catalog specs      writes specs/README.md and specs/drawings/*.svg

\b
Exit codes: 0 success, 1 an invalid spec or a file that cannot be written,
2 wrong usage.
"""
)
def catalog(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of specs.", show_default=False)
    ],
) -> None:
    """Write a README.md that lists the networks in a folder.

    For each network it has costs, smallest input, year, paper and a drawing. An
    existing README.md is overwritten.
    """
    from cnngraph.atomic_write import atomic_write_text
    from cnngraph.zoo.catalog import catalog

    if not folder.is_dir():
        raise CnngraphError(f"{folder} is not a folder")
    with terminal.progress(f"reading {folder}"):
        files = catalog(folder)
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        atomic_write_text(target, text)
    print(f"wrote {folder / 'README.md'} and {len(files) - 1} drawings")
