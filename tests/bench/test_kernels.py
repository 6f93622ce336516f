"""`bench_kernels` on small tensors."""

from __future__ import annotations

import pytest

from cnngraph import kernels
from cnngraph.bench.kernel_cases import cases
from cnngraph.bench.kernels import KernelBench, bench_kernels
from cnngraph.report.bench import kernels_data, kernels_table
from cnngraph.report.terminal import to_text

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the compiled kernels are not built")


PASSES = {"batch_norm_act": 8, "batch_norm_add_act": 11, "max_pool2d": 2}


@pytest.fixture(scope="module")
def found() -> KernelBench:
    return bench_kernels([0.02], rounds=2, seconds=1e-4, threads=1)


def test_every_room_type_and_format(found: KernelBench) -> None:
    assert [(row.case.room, row.case.dtype, row.case.memory_format) for row in found.rows] == [
        (room, dtype, memory_format)
        for room in PASSES
        for dtype in ("float32", "bfloat16")
        for memory_format in ("channels_last", "contiguous_format")
    ]
    for row in found.rows:
        assert row.shape[:2] == (16, 64)
        assert 0.01e6 < row.bytes <= 0.03e6
        assert row.bandwidth > 0
        assert row.speedup > 0
        assert row.passes > 0
        assert row.eager_passes > 0
        assert row.least_passes == PASSES[row.case.room]
        assert row.of_floor == row.passes / row.least_passes


def test_the_data_and_the_table(found: KernelBench) -> None:
    data = kernels_data(found)
    assert (data["device"], data["threads"], data["rounds"]) == ("cpu", 1, 2)
    assert data["memory_settings"].startswith("memory settings: ")
    assert len(data["rows"][0]["ours"]["rounds"]) == 2
    table = to_text(kernels_table(found))
    assert "batch_norm_act      bfloat16  contiguous" in table
    assert len(table.splitlines()) == 2 + 4 * len(PASSES)


def test_cases_cover_every_room() -> None:
    assert {case.room for case in cases(["a", "b"], [1.0])} == {"a", "b"}
    assert len(cases(["a"], [1.0, 2.0])) == 8
