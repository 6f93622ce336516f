"""`bench_kernels` on small tensors."""

from __future__ import annotations

import pytest

from cnngraph import kernels
from cnngraph.bench.kernels import KernelBench, bench_kernels, cases
from cnngraph.bench.report import kernels_data, kernels_table
from cnngraph.report.terminal import to_text

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)


PASSES = {"batch_norm_act": 8, "batch_norm_add_act": 11, "cat_batch_norm_act": 16, "max_pool2d": 2}


SIZES = {"cpu": (16, 64, 0.02), "cuda": (128, 64, 0.6)}
"""Images, channels, and approximate megabytes of a small feature map."""


@pytest.fixture(scope="module")
def found(device: str) -> KernelBench:
    return bench_kernels([SIZES[device][2]], rounds=2, seconds=1e-4, threads=1, device=device)


def test_every_kernel_data_type_and_format_is_measured(found: KernelBench) -> None:
    assert [(row.case.kernel, row.case.dtype, row.case.memory_format) for row in found.rows] == [
        (kernel, dtype, memory_format)
        for kernel in PASSES
        for dtype in ("float32", "bfloat16")
        for memory_format in ("channels_last", "contiguous_format")
    ]
    for row in found.rows:
        *size, megabytes = SIZES[found.device]
        assert list(row.shape[:2]) == size
        assert 0.4e6 < row.bytes / megabytes <= 1.5e6
        assert row.bandwidth > 0
        assert row.speedup > 0
        assert row.passes > 0
        assert row.eager_passes > 0
        assert row.least_passes == PASSES[row.case.kernel]
        assert row.of_floor == row.passes / row.least_passes


def test_data_and_table_have_a_row_for_each_case(found: KernelBench) -> None:
    data = kernels_data(found)
    assert (data["device"], data["threads"], data["rounds"]) == (found.device, 1, 2)
    assert (data["memory_settings"] is None) == (found.device == "cuda")
    assert len(data["rows"][0]["ours"]["rounds"]) == 2
    table = to_text(kernels_table(found))
    assert "batch_norm_act      bfloat16  contiguous" in table
    assert len(table.splitlines()) == 2 + 4 * len(PASSES)


def test_cases_are_all_combinations() -> None:
    assert {case.kernel for case in cases(["a", "b"], [1.0])} == {"a", "b"}
    assert len(cases(["a"], [1.0, 2.0])) == 8
