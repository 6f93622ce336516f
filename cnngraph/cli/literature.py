"""`cnngraph literature`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import Format, FormatOption, print_json
from cnngraph.report import terminal


@app.command(
    epilog="""\b
With --format json, stdout holds {"cnngraph": version, "claims": [
  {"topic", "quantity", "claimed", "found", "off", "source", "note"}]}
"off" is claimed / found - 1; null where nothing can be compared.

\b
Exit codes: 0 fine, 1 the folder lacks a network, 2 wrong usage.
"""
)
def literature(
    specs: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The folder of the published networks.")] = Path(
        "specs"
    ),
    format: FormatOption = Format.TEXT,
) -> None:
    """Hold what papers and books say of the classic networks against the specs.

    Parameters, multiply-accumulates, shapes and receptive fields are computed from the specs alone; where a common claim
    is off, it is said by how much, and why.
    """
    from cnngraph.zoo.literature import claims
    from cnngraph.zoo.literature_report import claim_data, claims_table

    with terminal.progress("reading the specs"):
        found = claims(specs)
    if format is Format.JSON:
        print_json({"claims": [claim_data(claim) for claim in found]})
    else:
        terminal.print_table(claims_table(found))
