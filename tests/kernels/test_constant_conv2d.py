"""1x1 and depthwise convolutions for inference, against torch's in float64."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
import torch
from conftest import profiled
from torch import Tensor, nn

from cnngraph import kernels
from cnngraph.kernels.constant_conv2d import depthwise_conv2d, pointwise_conv2d, pointwise_weight
from cnngraph.nn.folded import fold

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

BOUNDS = [(-inf, inf), (0.0, inf), (0.0, 1.5)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value


def assert_near(found: Tensor, exact: Tensor, residual: Tensor | None, low: float, high: float):
    exact = exact if residual is None else exact + residual.double()
    assert (found.double() - exact.clamp(low, high)).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize(
    "sizes", [(1, 16, 24, 7, 7), (3, 33, 70, 5, 9), (2, 256, 40, 20, 20), (1, 1, 1, 1, 1)]
)
def test_a_pointwise_convolution(
    sizes: tuple[int, ...], with_residual: bool, bounds: tuple[float, float]
) -> None:
    images, inputs, outputs, height, width = sizes
    x, weight, bias = (
        draw(images, inputs, height, width),
        draw(outputs, inputs, 1, 1),
        draw(outputs),
    )
    residual = draw(images, outputs, height, width, seed=1) if with_residual else None
    packed = pointwise_weight(weight)
    arguments = x, packed, outputs, bias, residual, *bounds
    exact = torch.conv2d(x.double(), weight.double(), bias.double())
    assert_near(pointwise_conv2d(*arguments), exact, residual, *bounds)
    torch.library.opcheck(torch.ops.cnngraph.pointwise_conv2d.default, arguments)
    torch.library.opcheck(torch.ops.cnngraph.pointwise_weight.default, (weight,))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("sliced", [False, True])
def test_a_pointwise_convolution_after_a_batch_norm(sliced: bool, affine: bool) -> None:
    wide = draw(3, 50, 9, 11)
    x = wide[:, :40] if sliced else wide[:, :40].contiguous(memory_format=torch.channels_last)
    mean, var, gamma, beta = (draw(40, seed=seed) for seed in range(4))
    var = var.abs() + 0.1
    scale = (gamma, beta) if affine else (None, None)
    weight, bias = draw(36, 40, 1, 1), draw(36)
    arguments = x, mean, var, *scale, 1e-3, pointwise_weight(weight), 36, bias, 0.0, 5.0
    found = torch.ops.cnngraph.batch_norm_relu_pointwise_conv2d(*arguments)
    wanted = [None if value is None else value.double() for value in scale]
    maps = torch.batch_norm(
        x.double(), wanted[0], wanted[1], mean.double(), var.double(), False, 0.1, 1e-3, False
    )
    exact = torch.conv2d(maps.relu(), weight.double(), bias.double())
    assert_near(found, exact, None, 0.0, 5.0)
    torch.library.opcheck(torch.ops.cnngraph.batch_norm_relu_pointwise_conv2d.default, arguments)
    with pytest.raises(RuntimeError, match=r"expected the mean of shape \[40\]"):
        torch.ops.cnngraph.batch_norm_relu_pointwise_conv2d(x, bias, *arguments[2:])


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize(
    ("sizes", "kernel", "geometry"),
    [
        ((2, 40, 9, 8), (3, 3), ((1, 1), (1, 1), (1, 1))),
        ((1, 33, 10, 7), (5, 3), ((2, 1), (2, 0), (1, 2))),
        ((2, 3, 4, 4), (3, 3), ((2, 2), (4, 4), (1, 1))),  # some windows only reach padding
    ],
)
def test_a_depthwise_convolution(
    sizes: tuple[int, ...],
    kernel: tuple[int, int],
    geometry: tuple[Any, ...],
    with_residual: bool,
    bounds: tuple[float, float],
) -> None:
    channels = sizes[1]
    x, weight, bias = draw(*sizes), draw(channels, 1, *kernel), draw(channels)
    stride, padding, dilation = geometry
    exact = torch.conv2d(
        x.double(), weight.double(), bias.double(), stride, padding, dilation, channels
    )
    residual = draw(*exact.shape, seed=1) if with_residual else None
    taps = weight.squeeze(1).permute(1, 2, 0)
    arguments = x, taps, bias, *geometry, residual, *bounds
    assert_near(torch.ops.cnngraph.depthwise_conv2d(*arguments), exact, residual, *bounds)
    torch.library.opcheck(torch.ops.cnngraph.depthwise_conv2d.default, arguments)


def test_bounds_let_nan_through() -> None:
    x = draw(1, 8, 3, 3)
    x[0, 0, 1, 1] = nan
    found = pointwise_conv2d(x, pointwise_weight(draw(8, 8, 1, 1)), 8, None, None, 0.0, 6.0)
    assert found[0, :, 1, 1].isnan().all()
    assert found.isfinite().sum() == 8 * 8
    found = depthwise_conv2d(x, draw(1, 1, 8), None, (1, 1), (0, 0), (1, 1), None, 0.0, 6.0)
    assert found[0, 0, 1, 1].isnan()
    assert found.isfinite().sum() == 8 * 9 - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 40}, "expected the packed weight of shape"),
        ({"channels": 0}, "expected channels, got 0"),
        ({"bias": torch.zeros(9)}, "expected a bias of shape"),
        ({"bias": torch.zeros(8).double()}, "expected a bias of type"),
        ({"residual": torch.zeros(1, 8, 3, 2)}, "expected a residual of shape"),
        ({"input": torch.zeros(8, 3, 3)}, "expected a float32 input of 4 dimensions"),
        ({"input": torch.zeros(1, 8, 3, 3).double()}, "expected a float32 input"),
    ],
)
def test_a_pointwise_convolution_refuses_what_does_not_fit(
    change: dict[str, Any], message: str
) -> None:
    fitting = {"input": torch.zeros(1, 8, 3, 3), "channels": 8, "bias": None, "residual": None}
    fitting["packed_weight"] = pointwise_weight(torch.zeros(8, 8, 1, 1))
    with pytest.raises(RuntimeError, match=message):
        pointwise_conv2d(**{**fitting, **change})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(3, 3, 7)}, "a weight of 3 with its channels"),
        ({"weight": torch.zeros(3, 3, 8).double()}, "expected the weight of type"),
        ({"weight": torch.zeros(4, 3, 8)}, "does not fit into an input of"),
        ({"stride": (0, 1)}, "stride must be 1 or more"),
        ({"padding": (1,) * 3}, "expected padding to be one or two integers"),
        ({"bias": torch.zeros(1)}, "expected a bias of shape"),
        ({"residual": torch.zeros(8)}, "expected a residual of shape"),
    ],
)
def test_a_depthwise_convolution_refuses_what_does_not_fit(
    change: dict[str, Any], message: str
) -> None:
    fitting = {"input": torch.zeros(1, 8, 3, 3), "weight": torch.zeros(3, 3, 8), "bias": None}
    fitting |= {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    with pytest.raises(RuntimeError, match=message):
        depthwise_conv2d(**{**fitting, **change})  # pyright: ignore[reportArgumentType]


def test_they_refuse_gradients() -> None:
    x, weight = draw(1, 8, 3, 3).requires_grad_(), draw(8, 8, 1, 1)
    with pytest.raises(NotImplementedError, match="pointwise_conv2d has no gradient"):
        pointwise_conv2d(x, pointwise_weight(weight), 8, None)
    with pytest.raises(NotImplementedError, match="depthwise_conv2d has no gradient"):
        depthwise_conv2d(x, draw(3, 3, 8), None, (1, 1), (1, 1), (1, 1))
    with pytest.raises(NotImplementedError, match="pointwise_weight has no gradient"):
        pointwise_weight(weight.requires_grad_())


@pytest.mark.parametrize(
    "activation", [None, nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-1.0, 0.5), nn.SiLU()], ids=str
)
@pytest.mark.parametrize("groups", [1, 24])
def test_a_folded_layer_runs_them(groups: int, activation: nn.Module | None) -> None:
    size = 1 if groups == 1 else 3
    conv = nn.Conv2d(24, 24, size, padding=size // 2, groups=groups)
    modules = [conv, nn.BatchNorm2d(24), *([] if activation is None else [activation])]
    for module in modules:
        module.eval()
    folded = fold(*modules)
    assert folded is not None
    x, residual = draw(2, 24, 6, 5), draw(2, 24, 6, 5, seed=1)
    with torch.no_grad():
        wanted = modules[1](conv(x)) + residual
        wanted = wanted if activation is None else activation(wanted)
        calls = profiled(lambda: folded(x, residual))
        torch.testing.assert_close(folded(x, residual), wanted)
    assert ("cnngraph::pointwise_conv2d" if groups == 1 else "cnngraph::depthwise_conv2d") in calls


def test_large_layers_are_the_librarys() -> None:
    conv = nn.Conv2d(64, 256, 1).eval()
    folded = fold(conv)
    assert folded is not None
    with torch.no_grad():
        assert "cnngraph::pointwise_conv2d" not in profiled(lambda: folded(draw(8, 64, 20, 20)))
        assert "cnngraph::pointwise_conv2d" in profiled(lambda: folded(draw(1, 64, 20, 20)))
