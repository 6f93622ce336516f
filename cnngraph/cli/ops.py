"""`cnngraph ops`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import Format, FormatOption, print_json
from cnngraph.errors import did_you_mean
from cnngraph.report import terminal


def _known_kinds(incomplete: str) -> list[str]:
    """For the shell's completion."""
    from cnngraph.report.ops import kinds

    return [kind for kind in kinds() if kind.startswith(incomplete)]


@app.command(
    epilog="""\b
Examples:
  cnngraph ops
  cnngraph ops conv2d
  cnngraph ops --format json

\b
With --format json, stdout holds {"cnngraph": version, "ops": [
  {"kind", "composite", "summary", "description", "main",
   "arguments": [{"name", "required", "default", "type",
                  "schema", "description"}]}]}
"main" is the argument that may be given bare: `linear: 10`.

\b
Exit codes: 0 fine, 1 a plugin is broken, 2 wrong usage (no such op).
"""
)
def ops(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Tell of this one alone.", show_default=False, autocompletion=_known_kinds),
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """List what a node can be; or, with a NAME, tell what it takes."""
    from cnngraph.ops import load_plugins
    from cnngraph.report import ops as words

    load_plugins()
    if name is not None and name not in words.kinds():
        hint = "".join(f"; {text}" for _, text in did_you_mean(name, words.kinds()))
        raise typer.BadParameter(f"there is no op `{name}`{hint or '; `cnngraph ops` lists what there is'}")
    if format is Format.JSON:
        print_json({"ops": words.kinds_data() if name is None else [words.kind_data(name)]})
    elif name is not None:
        print(words.kind_text(name))
    else:
        terminal.print_table(words.list_table())
