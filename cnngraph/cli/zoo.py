"""`cnngraph zoo`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import FormatOption, print_json
from cnngraph.errors import did_you_mean
from cnngraph.report import terminal


def _complete(incomplete: str) -> list[str]:
    from cnngraph.spec.shipped import shipped_names

    return [name for name in shipped_names() if name.startswith(incomplete)]


@app.command(
    epilog="""\b
Examples:
  cnngraph zoo
  cnngraph zoo resnet50 > my_net.yaml
  cnngraph zoo --format json

\b
With --format json, stdout is one object:
  {"cnngraph": version, "networks": [
    {"name", "params", "macs", "input", "year", "paper", "source",
     "spec": its text, with NAME}]}
"input" is without the batch; "macs" is for one image.

\b
Exit codes: 0 success, 2 wrong usage (no such network).
"""
)
def zoo(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Print the spec of this network.",
            show_default=False,
            autocompletion=_complete,
        ),
    ] = None,
    format: FormatOption = "text",
) -> None:
    """List the installed networks, or print the spec of one.

    A name of the list can be used wherever a command takes a spec. The printed spec
    includes the blocks that it imports and the base that it extends, so that it is
    a file of its own.
    """
    from cnngraph.spec.shipped import shipped_names, specs_folder
    from cnngraph.zoo.networks import entries_table, entry, entry_data
    from cnngraph.zoo.standalone import standalone

    names = shipped_names()
    if name is not None and name not in names:
        hints = [text for _, text in did_you_mean(name, names)]
        hint = "; ".join(hints) or "list all with `cnngraph zoo`"
        raise typer.BadParameter(f"there is no network `{name}`; {hint}")
    if name is None:
        with terminal.progress("reading the specs"):
            entries = [entry(item) for item in names]
        if format == "json":
            print_json({"networks": [entry_data(item) for item in entries]})
        else:
            terminal.print_table(entries_table(entries))
        return
    text = standalone(specs_folder() / f"{name}.yaml")
    if format == "json":
        print_json({"networks": [entry_data(entry(name)) | {"spec": text}]})
    else:
        print(text, end="")
