"""`cnngraph bench-kernels`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.bench import Device, DeviceOption, OutputOption, ThreadsOption, write_json
from cnngraph.cli.options import Format, FormatOption, print_json
from cnngraph.report import terminal
from cnngraph.report.terminal import printable


@app.command(
    name="bench-kernels",
    epilog="""\b
Examples:
  cnngraph bench-kernels
  cnngraph bench-kernels --megabytes 0.5,100 --rounds 9 -o kernels.json
  cnngraph bench-kernels --device cuda

\b
With --format json, stdout holds one object:
  {"cnngraph", "device", "threads", "rounds", "machine", "memory_settings", "kernels",
   "rows": [{"room", "dtype", "memory_format", "shape", "bytes",
             "copy", "ours", "eager": {"median", "min", "iqr", "rounds"},
             "bandwidth": bytes a second of the copy, "speedup",
             "passes", "eager_passes", "least_passes", "of_floor"}]}

\b
Exit codes: 0 measured, 1 there are no kernels, or no GPU for --device cuda, 2 wrong usage, 130 interrupted.
""",
)
def bench_kernels(
    device: DeviceOption = Device.CPU,
    megabytes: Annotated[
        str | None,
        typer.Option(
            metavar="MB,...",
            help="Sizes of the tensor, roughly; 0.5,2,8,32,100, on a GPU 16,64,256,1000, if not given.",
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = None,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="How often each is measured.")] = 5,
    format: FormatOption = Format.TEXT,
    output: OutputOption = None,
) -> None:
    """Measure the fused kernels, forward and backward, against PyTorch's operators and against a copy.

    Passes are how often the tensor could be read or written in that time at the bandwidth of a copy of it.
    """
    from cnngraph.bench.kernels import bench_kernels
    from cnngraph.bench.report import kernels_data, kernels_table, machine_line

    sizes = None if megabytes is None else _sizes(megabytes)
    with terminal.progress_bar() as progress:
        found = bench_kernels(sizes, rounds, threads=threads, device=device.value, progress=progress)
    data = kernels_data(found)
    if output is not None:
        write_json(output, data)
    if format is Format.JSON:
        print_json(data)
        return
    terminal.print_table(kernels_table(found))
    settings = [data["memory_settings"]] if data["memory_settings"] else []
    print("", *settings, printable(machine_line(found.machine, found.rounds)), sep="\n")
    if output is not None:
        print(f"wrote {output}")


def _sizes(text: str) -> list[float]:
    try:
        sizes = [float(item) for item in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(0.01 <= size <= 4000 for size in sizes):
        raise typer.BadParameter(f"`{text}` is no list of sizes from 0.01 to 4000 MB", param_hint="'--megabytes'")
    return sizes
