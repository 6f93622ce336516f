"""`bench_kernels` on small tensors."""

from __future__ import annotations

import pytest

from cnngraph import kernels
from cnngraph.bench.kernel_cases import cases
from cnngraph.bench.kernels import KernelBench, bench_kernels
from cnngraph.bench.report import kernels_data, kernels_table
from cnngraph.report.terminal import to_text

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the compiled kernels are not built")


PASSES = {"batch_norm_act": 8, "batch_norm_add_act": 11, "cat_batch_norm_act": 16, "max_pool2d": 2}


SIZES = {"cpu": (16, 64, 0.02), "cuda": (128, 64, 0.6)}
"""Images, channels, and megabytes of which a small map has some."""


@pytest.fixture(scope="module")
def found(device: str) -> KernelBench:
    return bench_kernels([SIZES[device][2]], rounds=2, seconds=1e-4, threads=1, device=device)


def test_every_room_type_and_format(found: KernelBench) -> None:
    assert [(row.case.room, row.case.dtype, row.case.memory_format) for row in found.rows] == [
        (room, dtype, memory_format)
        for room in PASSES
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
        assert row.least_passes == PASSES[row.case.room]
        assert row.of_floor == row.passes / row.least_passes


def test_the_data_and_the_table(found: KernelBench) -> None:
    data = kernels_data(found)
    assert (data["device"], data["threads"], data["rounds"]) == (found.device, 1, 2)
    assert (data["memory_settings"] is None) == (found.device == "cuda")
    assert len(data["rows"][0]["ours"]["rounds"]) == 2
    table = to_text(kernels_table(found))
    assert "batch_norm_act      bfloat16  contiguous" in table
    assert len(table.splitlines()) == 2 + 4 * len(PASSES)


def test_cases_cover_every_room() -> None:
    assert {case.room for case in cases(["a", "b"], [1.0])} == {"a", "b"}
    assert len(cases(["a"], [1.0, 2.0])) == 8
