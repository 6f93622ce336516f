"""`cnngraph bench-kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnngraph.allocator import MemorySettings
from cnngraph.bench.kernels import DTYPES, KernelDtype
from cnngraph.bench.networks import Progress
from cnngraph.cli.app import app
from cnngraph.cli.bench import DeviceOption, ThreadsOption, write_json
from cnngraph.cli.options import ForceOption, FormatOption, OutputOption, print_json, require_own
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from rich.table import Table


@app.command(
    name="bench-kernels",
    epilog="""\b
Examples:
  cnngraph bench-kernels
  cnngraph bench-kernels --megabytes 0.5,100 --rounds 9 -o kernels.json
  cnngraph bench-kernels --layers --dtype bfloat16
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
With --layers it has "dtype" and "peak_flops_per_second" too, and
  {"rows": [{"layer", "kind", "inputs", "outputs", "size", "kernel", "stride",
             "layers", "result", "flops", "chosen", "speedup",
             "kernels": {NAME: {"median", "min", "iqr", "rounds"}}}]}

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
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Measure convolutions, linear layers and dense blocks instead.",
        ),
    ] = False,
    dtype: Annotated[
        KernelDtype | None,
        typer.Option(help="Data type; float32 for layers, otherwise both.", show_default=False),
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

    With --layers, every kernel that can compute a result of a layer is measured
    on the CPU, in GFLOP/s: the library's, Winograd's with tiles of 2x2 and 4x4,
    and products of our own. The last column is the kernel that networks use.
    """
    require_own(output, '"cnngraph": ', "bench-kernels", force)
    if layers and (device != "cpu" or megabytes is not None):
        other = "--megabytes" if device == "cpu" else "--device cuda"
        raise typer.BadParameter(f"it does not go with {other}", param_hint="'--layers'")
    sizes = None if megabytes is None else _sizes(megabytes)
    with terminal.progress_bar() as progress:
        if layers:
            table, data, line = _of_layers(dtype or "float32", threads, rounds, progress)
        else:
            dtypes = DTYPES if dtype is None else (dtype,)
            table, data, line = _of_kernels(sizes, dtypes, threads, rounds, device, progress)
    write_json(output, data)
    if format == "json":
        print_json(data)
        return
    terminal.print_table(table)
    tuned = data["memory_settings"]
    settings = [str(MemorySettings(**tuned))] if tuned else []
    written = [] if output is None else [f"wrote {output}"]
    print(printable("\n".join(["", *settings, line, *written])))


_Found = tuple["Table", dict[str, Any], str]
"""A table, the same as plain data, and a line about the machine."""


def _of_kernels(
    sizes: list[float] | None,
    dtypes: Sequence[KernelDtype],
    threads: int | None,
    rounds: int,
    device: str,
    progress: Progress,
) -> _Found:
    from cnngraph.bench.kernels import bench_kernels
    from cnngraph.bench.report import kernels_data, kernels_table, machine_line

    found = bench_kernels(sizes, dtypes, rounds, threads=threads, device=device, progress=progress)
    return kernels_table(found), kernels_data(found), machine_line(found.machine, found.rounds)


def _of_layers(dtype: KernelDtype, threads: int | None, rounds: int, progress: Progress) -> _Found:
    from cnngraph.bench.layer_report import layers_data, layers_table
    from cnngraph.bench.layers import bench_layers
    from cnngraph.bench.report import machine_line

    found = bench_layers(dtype=dtype, rounds=rounds, threads=threads, progress=progress)
    line = f"peak {found.peak / 1e9:.0f} GFLOP/s; {machine_line(found.machine, found.rounds)}"
    return layers_table(found), layers_data(found), line


def _sizes(text: str) -> list[float]:
    try:
        sizes = [float(item) for item in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or not all(0.01 <= size <= 4000 for size in sizes):
        problem = f"`{text}` is not a list of sizes from 0.01 to 4000 MB"
        raise typer.BadParameter(problem, param_hint="'--megabytes'")
    return sizes
