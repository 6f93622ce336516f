"""`cnngraph bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cnngraph.bench.variants import BATCH_SIZES, Device, Dtype, Mode, Work, peers
from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    AllowCodeOption,
    ForceOption,
    FormatOption,
    OutputOption,
    PluginOption,
    SetOption,
    SpecArgument,
    load_plugins,
    parse_params,
    print_json,
    require_own,
    to_json,
)
from cnngraph.errors import CnngraphError
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

DeviceOption = Annotated[Device, typer.Option(help="`cuda` is the first visible GPU.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Threads per process; by default torch's choice."),
]


@app.command(
    epilog="""\b
Examples:
  cnngraph bench specs/resnet50.yaml
  cnngraph bench specs/googlenet.yaml --dtype bfloat16 --against compile
  cnngraph bench specs/resnet50.yaml --mode eval --batch-size 1 --plot b.svg
  cnngraph bench specs/densenet121.yaml --against lean,1.2GB
  cnngraph bench specs/densenet121.yaml --device cuda --rounds 3

\b
Variants:
  cnngraph              fused backend with memory settings; always measured
  default-malloc        the same without them; always measured (CPU)
  cnngraph-graph        cnngraph with its step as one CUDA graph (CUDA)
  eager                 plain torch.nn, channels_last
  eager-nchw            plain torch.nn, contiguous
  eager-graph           eager with its step as one CUDA graph (CUDA)
  lean                  fused, keeping less for backward (training)
  inference             batch norms folded into convolutions (evaluation)
  tuned-malloc          eager with memory settings (CPU)
  compile               torch.compile of eager, with memory settings
  compile-max-autotune  the same with mode max-autotune (CUDA)
  onnxruntime           ONNX Runtime (CPU, evaluation)
  6GB, or another size  fused, within this memory (training, on request)
  torchvision-memory-efficient
                        torchvision's DenseNet with memory_efficient=True
                        (training, DenseNets only, on request)
Memory settings apply on the CPU only.

\b
With --format json, stdout is one object:
  {"cnngraph", "file", "name", "params", "mode", "batch_size", "input",
   "dtype", "device", "threads", "rounds",
   "machine": {"cpu", "cpu_capability", "cpus", "memory_bytes",
               "system", "python", "torch", "gpu", "gpu_memory_bytes",
               "driver", "cuda", "cudnn",
               "other_work": share that other processes took},
   "variants": [
     {"name", "about", "error",
      "memory_settings": {"supported", "keeps_freed_memory", "huge_pages",
                          "advised_bytes"},
      "seconds": {"median", "min", "iqr", "rounds"},
      "ratio": to ours, "of_floor", "of_layers",
      "tensor_bytes", "held_bytes", "process_bytes",
      "prepare_seconds", "result": of the first step}],
   "floor": {"flops", "flops_per_second", "seconds", "layers_seconds",
             "layers": [{"path", "kind", "count", "seconds",
                         "flops_per_second"}], "error"}}
What could not be measured is null, and "error" says why.

\b
Exit codes: 0 success, 1 an invalid spec, no GPU, or an error of cnngraph's
own variant, 2 wrong usage, 130 interrupted.
"""
)
def bench(
    spec: SpecArgument,
    device: DeviceOption = "cpu",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images per step; by default 16, on a GPU 128."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Height and width; by default the spec's."),
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="16-bit types run under autocast; float16 needs a GPU.")
    ] = "float32",
    mode: Annotated[
        Mode, typer.Option(help="A training step, or a forward pass in evaluation mode.")
    ] = "train",
    threads: ThreadsOption = None,
    rounds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Measurements of each variant.")
    ] = 7,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Variants to compare with; by default all.", show_default=False
        ),
    ] = None,
    sets: SetOption = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: FormatOption = "text",
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw a bar chart, .png or .svg.", show_default=False),
    ] = None,
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    """Compare a network's step with plain PyTorch and others.

    Each variant runs in a process of its own, and they take turns in rounds. Shows
    the median time of a step with its spread, its ratio to cnngraph's, the peak
    memory, and the ratio to the least time that the arithmetic takes.
    """
    from cnngraph.bench.networks import bench_network
    from cnngraph.bench.report import headline, network_data, network_notes, network_table
    from cnngraph.checker import read_spec
    from cnngraph.elaborate import elaborate_or_raise

    params = parse_params(sets)
    if dtype == "float16" and device == "cpu":
        raise typer.BadParameter("float16 needs --device cuda", param_hint="'--dtype'")
    try:
        parts = None if against is None else [part.strip() for part in against.split(",")]
        names = peers(parts and list(filter(None, parts)), mode, device)
    except CnngraphError as error:
        raise typer.BadParameter(str(error), param_hint="'--against'") from None
    require_own(output, '"cnngraph": ', "bench", force)
    _check_outputs(plot, output)
    load_plugins(plugins)
    input = tuple(elaborate_or_raise(read_spec(spec, allow_code), params).input)
    if size is not None:
        if len(input) != 3:
            raise typer.BadParameter("the network's input is not an image", param_hint="'--size'")
        input = (input[0], size, size)
    images = batch_size or BATCH_SIZES[device]
    files = tuple(map(str, plugins or ()))
    work = Work(str(spec), params, images, input, dtype, mode, threads, device, files, allow_code)
    with terminal.progress_bar() as progress:
        found = bench_network(work, names, rounds, progress=progress)
    data = network_data(found)
    write_json(output, data)
    if plot is not None:
        from cnngraph.atomic_write import atomic_write
        from cnngraph.bench.plot import save_plot

        atomic_write(plot, lambda file: save_plot(found, file, plot.suffix[1:].lower()))
    if format == "json":
        print_json(data)
    else:
        print(printable(f"{headline(found)}\n"))
        terminal.print_table(network_table(found))
        written = [f"wrote {path}" for path in (output, plot) if path is not None]
        print(printable("\n".join(["", *network_notes(found), *written])))
    if found.ours.seconds is None:
        raise typer.Exit(FAULT)


def _check_outputs(plot: Path | None, output: Path | None) -> None:
    """Raises before the measurement what would otherwise fail after it."""
    if plot is not None:
        from cnngraph.report.plots import FORMATS, require_matplotlib

        if plot.suffix.lower() not in FORMATS:
            problem = f"a chart is a {' or '.join(FORMATS)} file"
            raise typer.BadParameter(problem, param_hint="'--plot'")
        require_matplotlib()
    for path in (plot, output):
        if path is not None and not path.resolve().parent.is_dir():
            raise CnngraphError(f"cannot write {path}: the folder {path.parent} does not exist")


def write_json(path: Path | None, data: dict[str, Any]) -> None:
    """Writes `data` as JSON, if there is a path."""
    from cnngraph.atomic_write import atomic_write_text

    if path is not None:
        atomic_write_text(path, to_json(data) + "\n")
