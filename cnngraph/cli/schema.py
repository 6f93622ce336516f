"""`cnngraph schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cnngraph.atomic_write import atomic_write_text
from cnngraph.cli.app import app
from cnngraph.cli.options import (
    AllowCodeOption,
    ForceOption,
    PluginOption,
    load_plugins,
    require_own,
)


@app.command(
    epilog="""\b
Examples:
  cnngraph schema -o spec.schema.json
  cnngraph schema my_net.yaml -o my_net.schema.json
For editors with yaml-language-server, begin a spec with the line:
  # yaml-language-server: $schema=spec.schema.json

\b
Exit codes: 0 success, 1 a broken plugin or a file that cannot be written,
2 wrong usage.
"""
)
def schema(
    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SPEC]",
            help="A spec, whose blocks the schema then knows.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write to FILE, not stdout.", show_default=False
        ),
    ] = None,
    force: ForceOption = False,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Print the JSON Schema of specs, for completion in editors.

    The schema is of draft 2020-12 and includes the ops of installed plugins. With a SPEC,
    nodes can only be ops and the blocks that it defines or imports.
    """
    from cnngraph.checker import read_spec
    from cnngraph.spec.json_schema import json_schema

    require_own(output, '"title": "cnngraph spec"', "schema", force)
    load_plugins(plugins)
    blocks = None if spec is None else read_spec(spec, allow_code).library.blocks
    text = json.dumps(json_schema(blocks), indent=2) + "\n"
    if output is None:
        print(text, end="")
    else:
        atomic_write_text(output, text)
