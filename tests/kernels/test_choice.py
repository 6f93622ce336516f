"""The table that chooses a kernel for each result of a convolution, and each kernel on its own."""

from __future__ import annotations

import platform
from typing import Any

import pytest
import torch
from conftest import profiled
from torch import Tensor

from cnngraph import kernels

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

KERNELS = ("library", "rows", "winograd_2x2", "winograd_4x4", "pointwise", "packed")
RESULTS = ("output", "input_gradient", "weight_gradient")
CASES = {
    "3x3": ((2, 40, 13, 10), (24, 40, 3, 3), (1, 1), (1, 0)),
    "3x3, stride 2": ((2, 20, 13, 10), (24, 20, 3, 3), (2, 2), (1, 1)),
    "1x1": ((3, 40, 9, 7), (36, 40, 1, 1), (1, 1), (0, 0)),
    "linear": ((5, 70, 1, 1), (33, 70, 1, 1), (1, 1), (0, 0)),
}
COMPUTE = {
    "3x3": {
        "output": {"library", "winograd_2x2", "winograd_4x4"},
        "input_gradient": {"library", "winograd_2x2", "winograd_4x4"},
        "weight_gradient": {"library", "winograd_2x2", "winograd_4x4", "packed"},
    },
    "3x3, stride 2": {
        "output": {"library"},
        "input_gradient": {"library"},
        "weight_gradient": {"library", "packed"},
    },
    "1x1": {
        "output": {"library", "pointwise"},
        "input_gradient": {"library", "pointwise"},
        "weight_gradient": {"library", "packed"},
    },
    "linear": {
        "output": {"library", "pointwise", "rows"},
        "input_gradient": {"library", "pointwise", "rows"},
        "weight_gradient": {"library", "packed", "rows"},
    },
}


def draw(case: str) -> tuple[Tensor, Tensor, Tensor, tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    input_size, weight_size, stride, padding = CASES[case]
    x, weight = (torch.randn(size, generator=generator) for size in (input_size, weight_size))
    y = torch.conv2d(x, weight, None, stride, padding)
    grad = torch.randn(y.shape, generator=generator)
    grad, x, weight = (t.to(memory_format=torch.channels_last) for t in (grad, x, weight))
    return grad, x, weight, (stride, padding, (1, 1), 1)


def exact(
    result: str, grad: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...]
) -> Tensor:
    stride, padding, *_ = geometry
    leaves = [value.double().requires_grad_() for value in (x, weight)]
    y = torch.conv2d(leaves[0], leaves[1], None, stride, padding)
    gradients = torch.autograd.grad(y, leaves, grad.double())
    return (y.detach(), *gradients)[RESULTS.index(result)]


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("case", CASES)
def test_every_kernel_that_can_compute_a_result_agrees_with_float64(case: str, result: str) -> None:
    grad, x, weight, geometry = draw(case)
    expected = exact(result, grad, x, weight, geometry)
    computed: set[str] = set()
    for kernel in KERNELS:
        try:
            found = kernels.extension.convolve_by(kernel, result, grad, x, weight, *geometry)
        except RuntimeError as error:
            assert f"the kernel {kernel} does not compute this" in str(error)
            continue
        computed.add(kernel)
        assert (found.double() - expected).abs().max() < 1e-5 * expected.abs().max()
    assert computed == COMPUTE[case][result]


def chosen(result: str, inputs: int, outputs: int, size: int, kernel: int, **other: Any) -> str:
    pad = kernel // 2
    given: dict[str, Any] = {"stride": [1, 1], "dilation": [1, 1], "groups": 1, **other}
    images = given.pop("images", 16)
    return kernels.extension.conv_kernel(
        result,
        [images, inputs, size, size],
        [outputs, inputs // given["groups"], kernel, kernel],
        padding=[pad, pad],
        **given,
    )


AVX2 = {
    (128, 128, 28, 3): ("winograd_4x4", "winograd_4x4", "winograd_4x4"),
    (64, 64, 56, 3): ("winograd_2x2", "winograd_4x4", "winograd_4x4"),
    (512, 512, 7, 3): ("winograd_4x4", "winograd_4x4", "winograd_4x4"),
    (256, 64, 56, 1): ("pointwise", "pointwise", "packed"),
    (2048, 512, 7, 1): ("pointwise", "pointwise", "packed"),
    (32, 96, 28, 5): ("library", "library", "packed"),
    (2, 2, 56, 3): ("library", "library", "library"),
    (4096, 4096, 1, 1): ("rows", "rows", "rows"),
}
TABLE = {
    "avx2": AVX2,
    "avx512": {
        **AVX2,
        (256, 64, 56, 1): ("library", "library", "library"),
        (2048, 512, 7, 1): ("library", "library", "packed"),
        (32, 96, 28, 5): ("library", "library", "library"),
    },
    "scalar_bfloat16": {
        **AVX2,
        (256, 64, 56, 1): ("library", "library", "packed"),
        (2048, 512, 7, 1): ("library", "library", "packed"),
    },
    "emulated_bfloat16": {
        **dict.fromkeys(AVX2, ("library", "library", "packed")),
        (2, 2, 56, 3): ("library", "library", "library"),
        (4096, 4096, 1, 1): ("library", "library", "library"),
    },
}
x86_only = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the table is for x86 processors"
)


@pytest.mark.parametrize("arithmetic", TABLE)
def test_the_table(arithmetic: str) -> None:
    bfloat16 = arithmetic.endswith("bfloat16")
    for sizes, wanted in TABLE[arithmetic].items():
        found = tuple(
            chosen(result, *sizes, bfloat16=bfloat16, arithmetic=arithmetic) for result in RESULTS
        )
        assert found == wanted, sizes


@pytest.mark.parametrize(
    ("arithmetic", "stride", "images", "wanted"),
    [
        ("avx2", 1, 16, "depthwise"),
        ("avx2", 2, 16, "library"),
        ("avx2", 2, 1, "depthwise"),
        ("avx512", 1, 16, "library"),
        ("avx512", 1, 1, "depthwise"),
    ],
)
def test_the_table_of_depthwise_convolutions(
    arithmetic: str, stride: int, images: int, wanted: str
) -> None:
    other: dict[str, Any] = {"stride": [stride] * 2, "images": images, "groups": 96}
    assert chosen("constant_output", 96, 96, 28, 3, arithmetic=arithmetic, **other) == wanted


@x86_only
def test_the_table_of_this_processor_runs() -> None:
    arithmetic = "avx512" if kernels.build_info()["cpu_capability"] == "avx512" else "avx2"
    for sizes in AVX2:
        for result in RESULTS:
            assert chosen(result, *sizes) == chosen(result, *sizes, arithmetic=arithmetic)


@pytest.mark.parametrize(
    ("sizes", "other"),
    [
        ((64, 64, 56, 3), {"groups": 2}),
        ((64, 64, 56, 3), {"stride": [1, 2]}),
        ((64, 64, 56, 3), {"dilation": [2, 1]}),
        ((64, 64, 2, 3), {"images": 1}),
    ],
)
def test_the_library_computes_what_the_kernels_do_not(
    sizes: tuple[int, int, int, int], other: dict[str, Any]
) -> None:
    assert {chosen(result, *sizes, **other) for result in RESULTS[:2]} == {"library"}


def test_the_operator_runs_the_chosen_kernel() -> None:
    x = torch.randn(16, 64, 14, 14).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3)
    geometry = [1, 1], [1, 1], [1, 1], 1
    kernel = kernels.extension.conv_kernel("output", [*x.shape], [*weight.shape], *geometry)
    found = torch.ops.cnngraph.conv2d(x, weight, None, *geometry)
    grad = torch.empty_like(found)
    assert torch.equal(
        found, kernels.extension.convolve_by(kernel, "output", grad, x, weight, *geometry)
    )
    names = profiled(lambda: torch.ops.cnngraph.conv2d(x, weight, None, *geometry))
    assert ("aten::convolution" in names) is (kernel == "library")


@pytest.mark.parametrize("unknown", [("fastest", "output"), ("library", "bias")])
def test_unknown_names_raise(unknown: tuple[str, str]) -> None:
    grad, x, weight, geometry = draw("1x1")
    with pytest.raises(RuntimeError, match="unknown name"):
        kernels.extension.convolve_by(*unknown, grad, x, weight, *geometry)


def test_a_gradient_of_another_size_raises() -> None:
    _, x, weight, geometry = draw("3x3")
    with pytest.raises(RuntimeError, match="expected a gradient of shape"):
        kernels.extension.convolve_by("library", "weight_gradient", x, x, weight, *geometry)
