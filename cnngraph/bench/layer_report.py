"""The result of `bench-kernels --layers` as a table and as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnngraph.bench.layers import LayerBench, LayerRow
from cnngraph.bench.report import machine_data
from cnngraph.report.terminal import simple_table

if TYPE_CHECKING:
    from rich.table import Table


def layers_table(bench: LayerBench) -> Table:
    """GFLOP/s of each kernel, the chosen one, and its speed as a multiple of the library's."""
    columns = "library", "2x2", "4x4", "product", "of peak", "x library"
    table = simple_table(left=("layer", "result"), right=columns)
    table.add_column("chosen", no_wrap=True)
    for row in bench.rows:
        table.add_row(*_cells(row, bench.peak))
    return table


def _cells(row: LayerRow, peak: float) -> list[str]:
    def rate(*names: str) -> str:
        return next((f"{row.rate(name) / 1e9:.0f}" for name in names if name in row.kernels), "-")

    products = "pointwise", "packed", "rows", "dense_block"
    return [
        str(row.case),
        row.result.replace("_", " "),
        rate("library"),
        rate("winograd_2x2"),
        rate("winograd_4x4"),
        rate(*products),
        f"{row.rate(row.chosen) / peak:.2f}",
        f"{row.speedup:.2f}",
        row.chosen,
    ]


def layers_data(bench: LayerBench) -> dict[str, Any]:
    """The same for JSON; times are in seconds."""
    return {
        "device": "cpu",
        "threads": bench.machine.get("threads"),
        "rounds": bench.rounds,
        "dtype": bench.dtype,
        "peak_flops_per_second": bench.peak,
        "machine": machine_data(bench.machine),
        "memory_settings": bench.machine.get("memory_settings"),
        "kernels": bench.machine.get("kernels"),
        "rows": [
            {
                "layer": str(row.case),
                **vars(row.case),
                "result": row.result,
                "flops": row.flops,
                "kernels": {name: samples.to_json() for name, samples in row.kernels.items()},
                "chosen": row.chosen,
                "speedup": row.speedup,
            }
            for row in bench.rows
        ],
    }
