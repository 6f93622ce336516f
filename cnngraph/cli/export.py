"""`cnngraph export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import (
    AllowCodeOption,
    PluginOption,
    SetOption,
    load_plugins,
    parse_params,
)
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from cnngraph.export.programs import Exported
    from cnngraph.lowering.network import Network


def _file(help: str) -> typer.models.OptionInfo:
    return typer.Option(metavar="FILE", help=help, show_default=False)


@app.command(
    epilog="""\b
Examples:
  cnngraph export resnet50.pt --onnx resnet50.onnx
  cnngraph export specs/resnet18.yaml --weights r18.safetensors \\
    --torch-export r18.pt2
  cnngraph export specs/resnet18.yaml --python resnet18.py

\b
ONNX needs: pip install "cnngraph[export]"
Batches may have any size, and images too, if the network accepts that. Each
file is run and compared with the network.

\b
Exit codes: 0 success, 1 an invalid spec, a network that cannot be exported or
a file that cannot be written, 2 wrong usage.
"""
)
def export(
    net: Annotated[
        Path,
        typer.Argument(
            metavar="NET", help="A spec, or a file of `cnngraph compile`.", show_default=False
        ),
    ],
    onnx: Annotated[Path | None, _file("Write ONNX, .onnx.")] = None,
    torch_export: Annotated[Path | None, _file("Write a program of torch.export, .pt2.")] = None,
    openvino: Annotated[Path | None, _file("Write an OpenVINO model, .xml.")] = None,
    python: Annotated[
        Path | None, _file("Write a PyTorch module that does not need cnngraph, .py.")
    ] = None,
    weights: Annotated[Path | None, _file("Load these weights into a spec's network.")] = None,
    sets: SetOption = None,
    opset: Annotated[
        int | None,
        typer.Option(min=18, metavar="N", help="Version of ONNX' operators.", show_default=False),
    ] = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Write a network for other programs."""
    if not (onnx or torch_export or openvino or python):
        raise typer.BadParameter("give --onnx, --torch-export, --openvino or --python")
    _require_other_files(net, onnx, torch_export, openvino, python)
    load_plugins(plugins)
    network = _network(net, sets, weights, allow_code)
    from cnngraph.export import programs

    if onnx is not None:
        with terminal.progress(f"exporting {net}"):
            exported = programs.export_onnx(network, onnx, opset)
        _print(exported)
    if torch_export is not None:
        with terminal.progress(f"exporting {net}"):
            exported = programs.export_program(network, torch_export)
        _print(exported)
    if openvino is not None:
        with terminal.progress(f"exporting {net}"):
            exported = programs.export_openvino(network, openvino)
        _print(exported)
    if python is not None:
        from cnngraph.atomic_write import atomic_write_text
        from cnngraph.export.python import python_source

        atomic_write_text(python, python_source(network))
        print(printable(f"wrote {python}"))


def _require_other_files(*files: Path | None) -> None:
    """Raises `BadParameter` if a file would be written over another."""
    taken: set[Path] = set()
    for file in filter(None, files):
        if file.resolve() in taken:
            raise typer.BadParameter(f"{file} is given twice: each export needs a file of its own")
        taken.add(file.resolve())


def _network(net: Path, sets: list[str] | None, weights: Path | None, allow_code: bool) -> Network:
    if net.suffix not in (".yaml", ".yml"):
        if sets or weights:
            raise typer.BadParameter("--set and --weights are for a spec")
        from cnngraph.weights.compiled import load_compiled

        return load_compiled(net, backend="eager", allow_code=allow_code).eval()
    from cnngraph.compiler import compile
    from cnngraph.weights import load_weights

    params = parse_params(sets)
    network = compile(net, params, backend="eager", allow_code=allow_code).eval()
    if weights is not None:
        load_weights(network, weights)
    return network


def _print(exported: Exported) -> None:
    inputs = exported.inputs
    shapes = ", ".join(inputs.values() if len(inputs) == 1 else map(" ".join, inputs.items()))
    print(printable(f"wrote {exported.path}: {shapes}, error {exported.error:.0e}"))
