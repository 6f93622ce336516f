"""What `bench` and `bench-kernels` found, as tables and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnngraph.bench.kernels import KernelBench, KernelRow
from cnngraph.bench.networks import FloorFound, NetworkBench, Row
from cnngraph.bench.variants import OURS
from cnngraph.report.numbers import plural, short

if TYPE_CHECKING:
    from rich.table import Table


def headline(bench: NetworkBench) -> str:
    """`resnet50: training step, batch 16 of 3x224x224, float32`."""
    work = bench.work
    step = "training step" if work.mode == "train" else "evaluation"
    cast = "float32" if work.dtype == "float32" else f"{work.dtype} autocast"
    return f"{bench.name}: {step}, batch {work.batch_size} of {'x'.join(map(str, work.input))}, {cast}"


def machine_line(found: Mapping[str, Any], rounds: int) -> str:
    """The machine, and how much of it others took while it was measured."""
    capability = f" ({found['cpu_capability']})" if "cpu_capability" in found else ""
    parts = [
        f"{found['gpu']}, driver {found['driver']}, CUDA {found['cuda']}, cuDNN {found['cudnn']}"
        if "gpu" in found
        else "",
        f"{found['cpu']}{capability}, {plural(found['cpus'], 'CPU')}",
        plural(found["threads"], "thread") if "threads" in found else "",
        f"torch {found['torch']}" if "torch" in found else "",
        plural(rounds, "round"),
        ""
        if found.get("other_work") is None
        else f"other work took {found['other_work']:.0%} of the machine meanwhile",
    ]
    return "; ".join(filter(None, parts))


def network_table(bench: NetworkBench) -> Table:
    table = _table()
    columns = ("", "step", "min", "IQR", f"x {OURS}", "tensors", "process", "x floor", "x layers alone")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in bench.rows:
        table.add_row(row.contender.name, *_cells(row, bench.floor))
    return table


def _cells(row: Row, floor: FloorFound) -> list[str]:
    if row.seconds is None:
        return ["-"] * 8
    times = [precise(row.seconds.median), precise(row.seconds.min), precise(row.seconds.iqr)]
    memory = ["-" if value is None else f"{short(value)}B" for value in (row.tensor_bytes, row.process_bytes)]
    return [*times, _times(row.ratio), *memory, *(_times(value) for value in _over_floors(row, floor))]


def _over_floors(row: Row, floor: FloorFound) -> list[float | None]:
    if row.seconds is None:
        return [None, None]
    return [row.seconds.median / value if value else None for value in (floor.seconds, floor.layers_seconds)]


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def network_notes(bench: NetworkBench) -> list[str]:
    """What stands under the table: failures, the floors, who the contenders are, and the machine."""
    lines = [f"{row.contender.name}: {row.error}" for row in bench.rows if row.error]
    lines += [f"{name}: its first result is {found:.6g}, ours {ours:.6g}" for name, found, ours in differing(bench)]
    lines += floor_lines(bench.floor)
    settings = next((row.memory_settings for row in bench.rows if row.memory_settings), None)
    return [*lines, *filter(None, [settings]), machine_line(bench.machine, bench.rounds)]


def differing(bench: NetworkBench) -> list[tuple[str, float, float]]:
    """The contenders whose first step results in something else than ours: `(name, theirs, ours)`.

    Dropout draws other numbers wherever a step is run in another order.
    """
    ours = bench.ours.result
    if ours is None:
        return []
    tolerance = (1e-3 if bench.work.dtype == "float32" else 3e-2) * max(abs(ours), 1e-6)
    return [
        (row.contender.name, row.result, ours)
        for row in bench.rows
        if row.result is not None and not abs(row.result - ours) <= tolerance
    ]


def floor_lines(floor: FloorFound) -> list[str]:
    if floor.error is not None:
        return [f"floor: {floor.error}"]
    if floor.rate is None or floor.seconds is None:
        return []
    lines = [
        f"floor: {short(floor.flops)}FLOP of convolutions and linear layers at {short(int(floor.rate.median))}FLOP/s,"
        f" the rate of {floor.peak}: {precise(floor.seconds)}"
    ]
    if floor.layers_seconds:
        total = sum(layer.count for layer in floor.layers)
        lines.append(
            f"layers alone: {plural(total, 'layer')}, {len(floor.layers)} of them distinct,"
            f" each timed alone through the library: {precise(floor.layers_seconds)}"
        )
    return lines


def network_data(bench: NetworkBench) -> dict[str, Any]:
    work, floor = bench.work, bench.floor
    return {
        "file": work.spec,
        "name": bench.name,
        "params": dict(work.params),
        "mode": work.mode,
        "batch_size": work.batch_size,
        "input": list(work.input),
        "dtype": work.dtype,
        "device": work.device,
        "threads": bench.machine.get("threads"),
        "rounds": bench.rounds,
        "machine": machine_data(bench.machine),
        "contenders": [_row_data(row, bench) for row in bench.rows],
        "floor": {
            "flops": floor.flops,
            "flops_per_second": None if floor.rate is None else floor.rate.median,
            "seconds": floor.seconds,
            "layers_seconds": floor.layers_seconds,
            "layers": [
                {"path": layer.path, "kind": layer.kind, "count": layer.count, "seconds": layer.seconds.median,
                 "flops_per_second": layer.flops / layer.seconds.median}
                for layer in floor.layers
            ],
            "error": floor.error,
        },
    }  # fmt: skip


def _row_data(row: Row, bench: NetworkBench) -> dict[str, Any]:
    of_floor, of_layers = _over_floors(row, bench.floor)
    return {
        "name": row.contender.name,
        "about": row.contender.about_on(bench.work.device),
        "error": row.error,
        "memory_settings": row.memory_settings,
        "seconds": None if row.seconds is None else row.seconds.to_json(),
        "ratio": row.ratio,
        "of_floor": of_floor,
        "of_layers": of_layers,
        "tensor_bytes": row.tensor_bytes,
        "held_bytes": row.held_bytes,
        "process_bytes": row.process_bytes,
        "prepare_seconds": row.prepare_seconds,
        "result": row.result,
    }


def machine_data(found: Mapping[str, Any]) -> dict[str, Any]:
    keys = (
        "cpu", "cpu_capability", "cpus", "memory_bytes", "system", "python", "torch",
        "gpu", "gpu_memory_bytes", "driver", "cuda", "cudnn", "other_work",
    )  # fmt: skip
    return {key: found.get(key) for key in keys}


def kernels_table(bench: KernelBench) -> Table:
    table = _table()
    columns = (
        "", "type", "format", "MB", "copy", "ours", "eager", "faster", "passes", "eager passes", "least", "x least",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "type", "format") else "right", no_wrap=True)
    for row in bench.rows:
        table.add_row(*_kernel_cells(row))
    return table


def _kernel_cells(row: KernelRow) -> list[str]:
    case = row.case
    names = [case.room, case.dtype, case.memory_format.removesuffix("_format")]
    times = [precise(figure.median) for figure in (row.ours, row.eager)]
    copy = f"{row.bandwidth / 1e9:.0f} GB/s"
    passes = [f"{row.passes:.1f}", f"{row.eager_passes:.1f}", str(row.least_passes), f"{row.of_floor:.2f}"]
    return [*names, f"{row.bytes / 1e6:.1f}", copy, *times, f"{row.speedup:.2f}", *passes]


def kernels_data(bench: KernelBench) -> dict[str, Any]:
    return {
        "device": bench.device,
        "threads": bench.machine.get("threads"),
        "rounds": bench.rounds,
        "machine": machine_data(bench.machine),
        "memory_settings": bench.machine.get("memory_settings"),
        "kernels": bench.machine.get("kernels"),
        "rows": [
            {
                "room": row.case.room,
                "dtype": row.case.dtype,
                "memory_format": row.case.memory_format,
                "shape": list(row.shape),
                "bytes": row.bytes,
                "copy": row.copy.to_json(),
                "ours": row.ours.to_json(),
                "eager": row.eager.to_json(),
                "bandwidth": row.bandwidth,
                "speedup": row.speedup,
                "passes": row.passes,
                "eager_passes": row.eager_passes,
                "least_passes": row.least_passes,
                "of_floor": row.of_floor,
            }
            for row in bench.rows
        ],
    }


def precise(seconds: float) -> str:
    """Three digits: `1.14 s`, `223 ms`, `25.3 us`."""
    unit, limit = next((item for item in (("s", 1.0), ("ms", 1e-3)) if seconds >= item[1]), ("us", 1e-6))
    value = seconds / limit
    return f"{value:.{max(0, 2 - (value >= 10) - (value >= 100))}f} {unit}"


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
