"""The results of `bench` and `bench-kernels` as tables and as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnngraph.allocator import MemorySettings
from cnngraph.bench.kernels import KernelBench, KernelRow
from cnngraph.bench.networks import FloorResult, NetworkBench, Row
from cnngraph.bench.variants import OURS
from cnngraph.report.numbers import plural, short
from cnngraph.report.terminal import simple_table

if TYPE_CHECKING:
    from rich.table import Table

_MACHINE = (
    "cpu", "cpu_capability", "cpus", "memory_bytes", "system", "python", "torch",
    "gpu", "gpu_memory_bytes", "driver", "cuda", "cudnn", "other_work",
)  # fmt: skip


def headline(bench: NetworkBench) -> str:
    """`resnet50: training step, batch 16 of 3x224x224, float32`."""
    work = bench.work
    step = "training step" if work.mode == "train" else "evaluation"
    dtype = "float32" if work.dtype == "float32" else f"{work.dtype} autocast"
    shape = "x".join(map(str, work.input))
    return f"{bench.name}: {step}, batch {work.batch_size} of {shape}, {dtype}"


def machine_line(found: Mapping[str, Any], rounds: int) -> str:
    """The machine, and how much of it other processes took during the measurement."""
    parts: list[str] = []
    if "gpu" in found:
        parts.append("{gpu}, driver {driver}, CUDA {cuda}, cuDNN {cudnn}".format_map(found))
    capability = f" ({found['cpu_capability']})" if "cpu_capability" in found else ""
    parts.append(f"{found['cpu']}{capability}, {plural(found['cpus'], 'CPU')}")
    if "threads" in found:
        parts += [plural(found["threads"], "thread"), f"torch {found['torch']}"]
    parts.append(plural(rounds, "round"))
    if found.get("other_work") is not None:
        parts.append(f"other processes took {found['other_work']:.0%} of the machine meanwhile")
    return "; ".join(parts)


def network_table(bench: NetworkBench) -> Table:
    """Time, memory, and multiples of the floors for each variant."""
    columns = "step", "min", "IQR", f"x {OURS}", "tensors", "process", "x floor", "x layers alone"
    table = simple_table(left=("",), right=columns)
    for row in bench.rows:
        table.add_row(row.variant.name, *_cells(row, bench.floor))
    return table


def _cells(row: Row, floor: FloorResult) -> list[str]:
    if row.seconds is None:
        return ["-"] * 8
    times = [precise(row.seconds.median), precise(row.seconds.min), precise(row.seconds.iqr)]
    peaks = [
        "-" if value is None else f"{short(value)}B"
        for value in (row.tensor_bytes, row.process_bytes)
    ]
    return [*times, _ratio(row.ratio), *peaks, *map(_ratio, _over_floors(row, floor))]


def _over_floors(row: Row, floor: FloorResult) -> list[float | None]:
    if row.seconds is None:
        return [None, None]
    floors = (floor.seconds, floor.layers_seconds)
    return [row.seconds.median / value if value else None for value in floors]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def network_notes(bench: NetworkBench) -> list[str]:
    """The lines below the table: errors, differing results, floors, settings, and the machine."""
    lines = [f"{row.variant.name}: {row.error}" for row in bench.rows if row.error]
    lines += [
        f"{name}: its first result is {found:.6g}, ours {ours:.6g}"
        for name, found, ours in differing(bench)
    ]
    lines += floor_lines(bench.floor)
    lines += [
        str(MemorySettings(**row.memory_settings)) for row in bench.rows if row.memory_settings
    ][:1]
    return [*lines, machine_line(bench.machine, bench.rounds)]


def differing(bench: NetworkBench) -> list[tuple[str, float, float]]:
    """The variants whose first result differs from ours, as `(name, theirs, ours)`.

    Networks with dropout differ if a variant runs the step in another order.
    """
    ours = bench.ours.result
    if ours is None:
        return []
    tolerance = (1e-3 if bench.work.dtype == "float32" else 3e-2) * max(abs(ours), 1e-6)
    return [
        (row.variant.name, row.result, ours)
        for row in bench.rows
        if row.result is not None and not abs(row.result - ours) <= tolerance
    ]


def floor_lines(floor: FloorResult) -> list[str]:
    """The two floors, or why there are none."""
    if floor.error is not None:
        return [f"floor: {floor.error}"]
    if floor.rate is None or floor.seconds is None:
        return []
    rate = short(int(floor.rate.median))
    lines = [
        f"floor: {short(floor.flops)}FLOP of convolutions and linear layers at {rate}FLOP/s,"
        f" the rate of {floor.peak}: {precise(floor.seconds)}"
    ]
    if floor.layers_seconds:
        total = plural(sum(layer.count for layer in floor.layers), "layer")
        lines.append(
            f"layers alone: {total}, {len(floor.layers)} of them distinct, each timed alone"
            f" through the library: {precise(floor.layers_seconds)}"
        )
    return lines


def network_data(bench: NetworkBench) -> dict[str, Any]:
    """The result of `bench` as plain data for JSON; times are in seconds."""
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
        "variants": [_row_data(row, bench) for row in bench.rows],
        "floor": {
            "flops": floor.flops,
            "flops_per_second": None if floor.rate is None else floor.rate.median,
            "seconds": floor.seconds,
            "layers_seconds": floor.layers_seconds,
            "layers": [
                {
                    "path": layer.path,
                    "kind": layer.kind,
                    "count": layer.count,
                    "seconds": layer.seconds.median,
                    "flops_per_second": layer.flops / layer.seconds.median,
                }
                for layer in floor.layers
            ],
            "error": floor.error,
        },
    }


def _row_data(row: Row, bench: NetworkBench) -> dict[str, Any]:
    of_floor, of_layers = _over_floors(row, bench.floor)
    return {
        "name": row.variant.name,
        "about": row.variant.about_on(bench.work.device),
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
    """The machine as plain data; what is unknown is None."""
    return {key: found.get(key) for key in _MACHINE}


def kernels_table(bench: KernelBench) -> Table:
    """Time, speedup and passes over memory for each kernel and tensor."""
    columns = "MB", "copy", "ours", "eager", "speedup", "passes", "eager passes", "least", "x least"
    table = simple_table(left=("kernel", "type", "format"), right=columns)
    for row in bench.rows:
        table.add_row(*_kernel_cells(row))
    return table


def _kernel_cells(row: KernelRow) -> list[str]:
    case = row.case
    names = [case.kernel, case.dtype, case.memory_format.removesuffix("_format")]
    sizes = [f"{row.bytes / 1e6:.1f}", f"{row.bandwidth / 1e9:.0f} GB/s"]
    times = [precise(row.ours.median), precise(row.eager.median), f"{row.speedup:.2f}"]
    passes = [f"{row.passes:.1f}", f"{row.eager_passes:.1f}", str(row.least_passes)]
    return [*names, *sizes, *times, *passes, f"{row.of_floor:.2f}"]


def kernels_data(bench: KernelBench) -> dict[str, Any]:
    """The result of `bench-kernels` as plain data for JSON; times are in seconds."""
    return {
        "device": bench.device,
        "threads": bench.machine.get("threads"),
        "rounds": bench.rounds,
        "machine": machine_data(bench.machine),
        "memory_settings": bench.machine.get("memory_settings"),
        "kernels": bench.machine.get("kernels"),
        "rows": [
            {
                "kernel": row.case.kernel,
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
    units = (("s", 1.0), ("ms", 1e-3))
    unit, factor = next((item for item in units if seconds >= item[1]), ("us", 1e-6))
    value = seconds / factor
    return f"{value:.{max(0, 2 - (value >= 10) - (value >= 100))}f} {unit}"
