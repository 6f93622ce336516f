"""`cnngraph draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import app
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
  cnngraph draw specs/resnet50.yaml -o resnet50.svg
  cnngraph draw specs/googlenet.yaml -o googlenet.pdf --depth 2 --dark

\b
SVG and Mermaid (.mmd) need nothing else; PNG and PDF need:
  pip install "cnngraph[draw]"

\b
Exit codes: 0 success, 1 an invalid spec or a file that cannot be written,
2 wrong usage.
"""
)
def draw(
    spec: SpecArgument,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="FILE", help="A file that ends in .svg, .png, .pdf or .mmd."
        ),
    ],
    sets: SetOption = None,
    depth: Annotated[
        int, typer.Option(min=1, help="Levels of blocks to open in place; 1 folds every block.")
    ] = 1,
    width: Annotated[float, typer.Option(min=85, help="Width of the sheet in millimetres.")] = 180,
    dark: Annotated[bool, typer.Option("--dark", help="Light lines on dark paper.")] = False,
    fused: Annotated[
        bool, typer.Option("--fused", help="Shade what runs as part of a fused operation.")
    ] = False,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    force: ForceOption = False,
) -> None:
    """Draw a network as SVG, PNG, PDF or Mermaid.

    The network is drawn from left to right on steps, one for each resolution.
    Copies of a block are folded, and each distinct block is drawn open once.
    """
    from cnngraph.checker import draw
    from cnngraph.drawing.drawing import format_of

    if format_of(output) in (".svg", ".mmd"):
        require_own(output, "Made by `cnngraph draw`", "draw", force)
    elif output.is_file() and not force:
        raise typer.BadParameter(f"{output} exists (--force overwrites it)")
    params = parse_params(sets)
    load_plugins(plugins)
    drawn = draw(
        spec, params, depth=depth, width=width, dark=dark, fused=fused, allow_code=allow_code
    )
    drawn.save(output)
    print(f"wrote {output}")
