"""`cnngraph info`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.report.terminal import printable


@app.command(
    epilog="""\b
Examples:
  cnngraph info
  cnngraph info --json

\b
Exit codes: 0 success, 2 wrong usage.
"""
)
def info(
    json: Annotated[bool, typer.Option("--json", help="Print a single JSON object.")] = False,
) -> None:
    """Show what a report of a problem needs.

    These are the versions, the processor and its capability, the threads, and
    whether the compiled kernels are loaded.
    """
    from cnngraph.cli.options import to_json
    from cnngraph.info import info, info_text

    data = info()
    print(to_json(data) if json else printable(info_text(data)))
