"""`cnngraph bench-kernels`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.allocator import MemorySettings
from cnngraph.cli.app import app
from cnngraph.cli.bench import DeviceOption, ThreadsOption, write_json
from cnngraph.cli.options import ForceOption, FormatOption, OutputOption, print_json, require_own
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
With --format json, stdout is one object:
  {"cnngraph", "device", "threads", "rounds", "machine",
   "memory_settings": {"supported", "keeps_freed_memory", "huge_pages",
                       "advised_bytes"},
   "kernels",
   "rows": [{"kernel", "dtype", "memory_format", "shape", "bytes",
             "copy", "ours", "eager": {"median", "min", "iqr", "rounds"},
             "bandwidth": of the copy in bytes per second, "speedup",
             "passes", "eager_passes", "least_passes", "of_floor"}]}

\b
Exit codes: 0 success, 1 no compiled kernels or no GPU, 2 wrong usage,
130 interrupted.
""",
)
def bench_kernels(
    device: DeviceOption = "cpu",
    megabytes: Annotated[
        str | None,
        typer.Option(
            metavar="MB,...",
            help="Sizes of the tensor; by default 0.5,2,8,32,100, on a GPU 16,64,256,1000.",
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = None,
    rounds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Measurements of each kernel.")
    ] = 5,
    format: FormatOption = "text",
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    """Compare the fused kernels with PyTorch's operators.

    Each kernel runs forward and backward, and is also compared with a copy of its
    tensor: the number of passes is its time over that of one read or write.
    """
    from cnngraph.bench.kernels import bench_kernels
    from cnngraph.bench.report import kernels_data, kernels_table, machine_line

    require_own(output, '"cnngraph": ', "bench-kernels", force)
    sizes = None if megabytes is None else _sizes(megabytes)
    with terminal.progress_bar() as progress:
        found = bench_kernels(sizes, rounds, threads=threads, device=device, progress=progress)
    data = kernels_data(found)
    write_json(output, data)
    if format == "json":
        print_json(data)
        return
    terminal.print_table(kernels_table(found))
    tuned = data["memory_settings"]
    settings = [str(MemorySettings(**tuned))] if tuned else []
    written = [] if output is None else [f"wrote {output}"]
    notes = [*settings, machine_line(found.machine, found.rounds), *written]
    print(printable("\n".join(["", *notes])))


def _sizes(text: str) -> list[float]:
    try:
        sizes = [float(item) for item in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(0.01 <= size <= 4000 for size in sizes):
        problem = f"`{text}` is not a list of sizes from 0.01 to 4000 MB"
        raise typer.BadParameter(problem, param_hint="'--megabytes'")
    return sizes
