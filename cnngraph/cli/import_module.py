"""`cnngraph import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import ForceOption, require_own
from cnngraph.errors import listing
from cnngraph.report import terminal

_MARK = "# Imported from "


@app.command(
    name="import",
    epilog="""\b
Examples:
  cnngraph import torchvision:resnet50
  cnngraph import timm:efficientnet_b0 -o efficientnet_b0.yaml
  cnngraph import torchvision:resnet18 --pretrained -o r18.yaml \\
    --weights r18.safetensors
  cnngraph import my_package.networks:my_net --input 1,28,28 --allow-code

\b
Exit codes: 0 success, 1 a module that cannot be imported or a file that
cannot be written, 2 wrong usage.
""",
)
def import_module(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="torchvision:NAME, timm:NAME, or package.module:callable.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the spec to a file; by default it is printed.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Save the module's weights, .safetensors.", show_default=False
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Load the published weights first.")
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="C,H,W",
            help="Shape of one image; by default what the network was made for, or 3,224,224."
            " Give it once for each argument of the module's forward.",
            show_default=False,
        ),
    ] = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Keep submodules that the language has no words for, as `module:` nodes.",
        ),
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write the spec of an existing PyTorch module.

    Modules of the same structure become blocks, and siblings of the same structure
    a repeat. The names of modules stay, so that the weights fit.
    """
    require_own(output, _MARK, "import", force)
    shapes = [_shape(text) for text in inputs or []]
    from cnngraph.atomic_write import atomic_write_text
    from cnngraph.importer import from_module
    from cnngraph.importer.named import module_by_name
    from cnngraph.weights import save_weights

    with terminal.progress(f"importing {source}"):
        module, name, made_for = module_by_name(source, pretrained=pretrained)
        imported = from_module(module, shapes or made_for, name=name, allow_code=allow_code)
    text = f"{_MARK}{source}.\n"
    if imported.kept:
        text += f"# It needs --allow-code, for {listing(imported.kept)}.\n"
    text += imported.spec
    if output is None:
        print(text, end="")
    else:
        atomic_write_text(output, text)
        print(f"wrote {output}")
    if weights is not None:
        save_weights(imported.compile(backend="eager"), weights)
        if output is not None:
            print(f"wrote {weights}")


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if len(sizes) > 4 or not all(size.strip().isdecimal() for size in sizes):
        raise typer.BadParameter(f"`{text}` is no shape such as 3,224,224", param_hint="'--input'")
    return tuple(map(int, sizes))
