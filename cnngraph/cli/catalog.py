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
  cnngraph catalog specs
writes specs/README.md and specs/drawings/*.svg.

\b
Exit codes: 0 fine, 1 a spec is at fault or a file cannot be written, 2 wrong usage.
"""
)
def catalog(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of specs.", show_default=False)],
) -> None:
    """Write a page about a folder of specs: costs, least input, year, paper and a drawing of each network.

    The page is README.md in that folder; one that is there is replaced.
    """
    from cnngraph.atomic_write import atomic_write
    from cnngraph.zoo.catalog import catalog

    if not folder.is_dir():
        raise CnngraphError(f"{folder} is not a folder")
    with terminal.progress(f"reading {folder}"):
        files = catalog(folder)
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        atomic_write(target, lambda file, text=text: file.write_text(text, encoding="utf-8"))
    print(f"wrote {folder / 'README.md'} and {len(files) - 1} drawings")
