"""`cnngraph bench`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnngraph import __version__
from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import Format, FormatOption, SetOption, SpecArgument, parse_params, print_json
from cnngraph.errors import CnngraphError
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from cnngraph.bench.networks import NetworkBench


class Dtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Mode(StrEnum):
    TRAIN = "train"
    EVAL = "eval"


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


DeviceOption = Annotated[Device, typer.Option(help="`cuda` is the first GPU that CUDA shows.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Threads of each process; torch's own choice if not given.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write the result as JSON there.", show_default=False),
]


@app.command(
    epilog="""\b
Examples:
  cnngraph bench specs/resnet50.yaml
  cnngraph bench specs/googlenet.yaml --dtype bfloat16 --against tuned-malloc,compile
  cnngraph bench specs/resnet50.yaml --mode eval --batch-size 1 --plot bench.svg -o bench.json
  cnngraph bench specs/densenet121.yaml --against lean,1.2GB
  cnngraph bench specs/densenet121.yaml --device cuda --dtype bfloat16 --rounds 3

\b
Contenders:
  cnngraph              the fused backend, with memory settings; always there
  default-malloc        the same without memory settings; always there (CPU)
  cnngraph-graph        cnngraph with its step as one CUDA graph (CUDA)
  eager                 plain torch.nn, channels_last
  eager-nchw            plain torch.nn, contiguous
  eager-graph           eager with its step as one CUDA graph (CUDA)
  lean                  fused, keeping less for backward (training)
  inference             batch norms folded into convolutions (evaluation)
  tuned-malloc          eager with memory settings (CPU)
  compile               torch.compile of eager, with memory settings
  compile-max-autotune  the same in its mode max-autotune (CUDA)
  onnxruntime           ONNX Runtime (CPU, evaluation)
  6GB, or another size  fused, within this memory (training, if asked for)
  torchvision-memory-efficient
                        torchvision's DenseNet with memory_efficient=True
                        (training, DenseNets only, if asked for)
There are memory settings on the CPU only.

\b
With --format json, stdout holds one object:
  {"cnngraph", "file", "name", "params", "mode", "batch_size", "input",
   "dtype", "device", "threads", "rounds",
   "machine": {"cpu", "cpu_capability", "cpus", "memory_bytes",
               "system", "python", "torch", "gpu", "gpu_memory_bytes",
               "driver", "cuda", "cudnn", "other_work": share of it that others took},
   "contenders": [
     {"name", "about", "error", "memory_settings",
      "seconds": {"median", "min", "iqr", "rounds"},
      "ratio": times ours, "of_floor", "of_layers",
      "tensor_bytes", "held_bytes", "process_bytes",
      "prepare_seconds", "result": the first step's}],
   "floor": {"flops", "flops_per_second", "seconds", "layers_seconds",
             "layers": [{"path", "kind", "count", "seconds",
                         "flops_per_second"}], "error"}}
What could not be measured is null, and "error" says why.

\b
Exit codes: 0 measured, 1 the spec is at fault, there is no GPU for --device cuda, or cnngraph itself could not run,
2 wrong usage, 130 interrupted.
"""
)
def bench(
    spec: SpecArgument,
    device: DeviceOption = Device.CPU,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images in a step; 16, on a GPU 128, if not given.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Height and width of the images; the spec's if not given.")
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option(help="bfloat16 and float16 run under autocast; float16 on a GPU.")
    ] = Dtype.FLOAT32,
    mode: Annotated[Mode, typer.Option(help="A training step, or a forward pass in evaluation.")] = Mode.TRAIN,
    threads: ThreadsOption = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="How often each contender is measured.")] = 7,
    against: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="The peers; all that run there if not given.", show_default=False),
    ] = None,
    sets: SetOption = None,
    format: FormatOption = Format.TEXT,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw a bar chart there, .png or .svg.", show_default=False),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Measure a network's step against plain PyTorch and others, on this machine.

    Each contender has a process of its own, and they take turns in rounds. Shown are the median step with its spread,
    how many times ours it is, peak memory, and how far each stands from the least that its arithmetic takes.
    """
    from cnngraph.bench.networks import bench_network
    from cnngraph.bench.report import network_data
    from cnngraph.bench.variants import BATCH_SIZES, Work, peers
    from cnngraph.checker import read_spec
    from cnngraph.elaborate import elaborate_or_raise

    params = parse_params(sets)
    if dtype is Dtype.FLOAT16 and device is Device.CPU:
        raise typer.BadParameter("float16 needs --device cuda", param_hint="'--dtype'")
    try:
        named = None if against is None else [name.strip() for name in against.split(",") if name.strip()]
        names = peers(named, mode, device)
    except CnngraphError as error:
        raise typer.BadParameter(str(error), param_hint="'--against'") from None
    _check_outputs(plot, output)
    input = tuple(elaborate_or_raise(read_spec(spec), params).input)
    if size is not None:
        if len(input) != 3:
            raise typer.BadParameter("the network's input is no image", param_hint="'--size'")
        input = (input[0], size, size)
    images = batch_size or BATCH_SIZES[device]
    work = Work(str(spec), params, images, input, dtype.value, mode.value, threads, device.value)
    with terminal.progress_bar() as progress:
        found = bench_network(work, names, rounds, progress=progress)
    data = network_data(found)
    if output is not None:
        write_json(output, data)
    if plot is not None:
        from cnngraph.atomic_write import atomic_write
        from cnngraph.bench.plot import save_plot

        atomic_write(plot, lambda file: save_plot(found, file, plot.suffix[1:].lower()))
    if format is Format.JSON:
        print_json(data)
    else:
        _print_bench(found, [path for path in (output, plot) if path is not None])
    if found.ours.seconds is None:
        raise typer.Exit(FAULT)


def _check_outputs(plot: Path | None, output: Path | None) -> None:
    """What would be a pity to learn after the measurement."""
    if plot is not None:
        from cnngraph.bench.plot import FORMATS, require_matplotlib

        if plot.suffix.lower() not in FORMATS:
            raise typer.BadParameter(f"a chart is a {' or '.join(FORMATS)} file", param_hint="'--plot'")
        require_matplotlib()
    for path in (plot, output):
        if path is not None and not path.resolve().parent.is_dir():
            raise CnngraphError(f"cannot write {path}: the folder {path.parent} does not exist")


def write_json(path: Path, data: dict[str, Any]) -> None:
    from cnngraph.atomic_write import atomic_write

    text = json.dumps({"cnngraph": __version__, **data}, indent=2) + "\n"
    atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))


def _print_bench(found: NetworkBench, written: list[Path]) -> None:
    from cnngraph.bench.report import headline, network_notes, network_table

    print(printable(f"{headline(found)}\n"))
    terminal.print_table(network_table(found))
    print()
    for line in [*network_notes(found), *(f"wrote {path}" for path in written)]:
        print(printable(line))
