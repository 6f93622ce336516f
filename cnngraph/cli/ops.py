"""`cnngraph ops`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import FormatOption, print_json
from cnngraph.errors import did_you_mean
from cnngraph.report import terminal


def _complete(incomplete: str) -> list[str]:
    from cnngraph.report.ops import kinds

    return [kind for kind in kinds() if kind.startswith(incomplete)]


@app.command(
    epilog="""\b
Examples:
  cnngraph ops
  cnngraph ops conv2d
  cnngraph ops --format json

\b
With --format json, stdout is one object:
  {"cnngraph": version, "ops": [
    {"kind", "composite", "summary", "description", "main",
     "arguments": [{"name", "required", "default", "type",
                    "schema", "description"}]}]}
"main" is the argument that may be given by itself: `linear: 10`.

\b
Exit codes: 0 success, 1 a broken plugin, 2 wrong usage (no such op).
"""
)
def ops(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Show only this op.", show_default=False, autocompletion=_complete
        ),
    ] = None,
    format: FormatOption = "text",
) -> None:
    """List the ops, or show the arguments of one."""
    from cnngraph.ops import load_plugins
    from cnngraph.report.ops import kind_data, kind_text, kinds, list_table

    load_plugins()
    if name is not None and name not in kinds():
        hints = [text for _, text in did_you_mean(name, kinds())]
        hint = "; ".join(hints) or "list all with `cnngraph ops`"
        raise typer.BadParameter(f"there is no op `{name}`; {hint}")
    if format == "json":
        print_json({"ops": [kind_data(kind) for kind in ([name] if name else kinds())]})
    elif name is not None:
        print(kind_text(name))
    else:
        terminal.print_table(list_table())
