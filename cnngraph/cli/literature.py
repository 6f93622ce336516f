"""`cnngraph literature`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import FormatOption, print_json
from cnngraph.report import terminal


@app.command(
    epilog="""\b
Examples:
  cnngraph literature
  cnngraph literature specs --format json

\b
With --format json, stdout is one object:
  {"cnngraph": version, "claims": [
    {"topic", "quantity", "claimed", "found", "off", "source", "note"}]}
"off" is claimed / found - 1, or null if nothing can be compared.

\b
Exit codes: 0 success, 1 the folder lacks a network, 2 wrong usage.
"""
)
def literature(
    specs: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="The folder of the published networks; by default, that of `cnngraph zoo`.",
            show_default=False,
        ),
    ] = None,
    format: FormatOption = "text",
) -> None:
    """Compare published figures of classic networks with the specs.

    Computes parameters, multiply-accumulates, shapes and receptive fields from the
    specs. If a published figure differs, shows by how much and why.
    """
    from cnngraph.spec.shipped import specs_folder
    from cnngraph.zoo.literature import claims
    from cnngraph.zoo.literature_report import claim_data, claims_table

    with terminal.progress("reading the specs"):
        found = claims(specs or specs_folder())
    if format == "json":
        print_json({"claims": [claim_data(claim) for claim in found]})
    else:
        terminal.print_table(claims_table(found))
