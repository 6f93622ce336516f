"""`cnngraph report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    AllowCodeOption,
    ForceOption,
    PluginOption,
    SetOption,
    SpecArgument,
    load_plugins,
    parse_params,
    require_own,
)


@app.command(
    epilog="""\b
Examples:
  cnngraph report specs/resnet50.yaml -o resnet50.html
  cnngraph report specs/googlenet.yaml -o googlenet.html --measure

\b
Exit codes: 0 success, 1 an invalid spec or a file that cannot be written,
2 wrong usage. The page of an invalid spec is written too.
"""
)
def report(
    spec: SpecArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The page to write.")
    ],
    sets: SetOption = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time each layer on this machine; this loads torch.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write a page about a network, for a browser.

    The page is a single file that needs no network access. It has the network
    to unfold and search, its costs, its drawing, the spec beside it, and the
    mistakes of an invalid spec with the part of the network that is valid.
    """
    from cnngraph.page.page import MARK, report_page

    require_own(output, MARK, "report", force)
    params = parse_params(sets)
    load_plugins(plugins)
    page = report_page(spec, params, measure=measure, allow_code=allow_code)
    page.save(output)
    print(f"wrote {output}")
    if not page.ok:
        raise typer.Exit(FAULT)
