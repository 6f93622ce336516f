"""`cnngraph schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cnngraph.atomic_write import atomic_write
from cnngraph.cli.app import app


@app.command(
    epilog="""\b
Examples:
  cnngraph schema -o cnngraph.spec.json_schema.json
and then, as the first line of a spec, for editors that use yaml-language-server:
  # yaml-language-server: $schema=cnngraph.spec.json_schema.json

\b
Exit codes: 0 fine, 1 the file cannot be written or a plugin is broken, 2 wrong usage.
"""
)
def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it there instead of to stdout.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for completion and checks in editors.

    It is of draft 2020-12 and covers the ops of installed plugins.
    """
    from cnngraph.spec.json_schema import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if output is None:
        print(text, end="")
        return
    atomic_write(output, lambda file: file.write_text(text, encoding="utf-8"))
