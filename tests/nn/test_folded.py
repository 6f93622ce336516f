"""Folded layers equal the modules they were made of."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from cnngraph.nn.folded import FoldedConv2d, FoldedLinear, fold

ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.75), nn.LeakyReLU(0.2), nn.SiLU(), nn.GELU(),
    nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.ELU(), nn.Mish(), nn.Hardsigmoid(), None,
]  # fmt: skip


def parts(
    channels: int = 8, dtype: torch.dtype = torch.float32, **settings: object
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    settings = {"kernel_size": 3, "padding": 1, **settings}
    conv = nn.Conv2d(channels, channels, dtype=dtype, **settings)  # pyright: ignore[reportArgumentType]
    norm = nn.BatchNorm2d(channels, dtype=dtype)
    with torch.no_grad():
        for value in (*norm.parameters(), norm.running_mean, norm.running_var):
            value.uniform_(0.5, 1.5)
    return conv.eval(), norm.eval()


def eager(modules: tuple[nn.Module | None, ...], x: Tensor, residual: Tensor | None) -> Tensor:
    conv, norm, activation = modules
    y = conv(x)  # pyright: ignore[reportOptionalCall]
    y = y if norm is None else norm(y)
    y = y if residual is None else y + residual
    return y if activation is None else activation(y)


def images(channels: int = 8, size: int = 9, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(2, channels, size, size + 1, dtype=dtype)
    return x.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("channels", [8, 32])
@torch.inference_mode()
def test_folded_layer_computes_the_same_as_its_modules(
    activation: nn.Module | None, with_norm: bool, with_residual: bool, channels: int
) -> None:
    """32 channels run by Winograd's filtering, 8 by oneDNN."""
    conv, norm = parts(channels)
    modules = (conv, norm if with_norm else None, activation and activation.eval())
    x = images(channels)
    residual = images(channels) if with_residual else None
    kept = None if residual is None else residual.clone()
    folded = fold(*(module for module in modules if module is not None))
    assert isinstance(folded, FoldedConv2d)
    expected = eager(tuple(m if m is None else copy.deepcopy(m).double() for m in modules), x.double(),
                     residual if residual is None else residual.double())  # fmt: skip
    # Sums of 9 * channels products of order one.
    torch.testing.assert_close(folded(x, residual).double(), expected, rtol=1e-4, atol=1e-4)
    if residual is not None:
        assert torch.equal(residual, kept)


@pytest.mark.parametrize("channels", [8, 32])
@torch.inference_mode()
def test_nan_and_infinity_equal_the_modules(channels: int) -> None:
    conv, norm = parts(channels, padding=0, kernel_size=3)
    folded = fold(conv, norm, nn.ReLU().eval())
    assert folded is not None
    x = images(channels, 12)
    x[0, 0, 6, 6] = float("nan")
    x[1, 1, 6, 6] = float("inf")
    expected = eager((conv, norm, nn.ReLU()), x, None)
    found = folded(x)
    assert found.isnan().equal(expected.isnan())
    assert found.isnan().any()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.75)], ids=str)
@torch.inference_mode()
def test_onednn_applies_bounds_where_no_result_is_nan(activation: nn.Module) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 24, 3, padding=1).eval()
    x = images(4, 12)
    for change in ("none", "nan", "inf", "overflow", "nan weight", "large weight"):
        if "weight" in change:
            conv.weight[3, 2, 1, 1] = float("nan") if "nan" in change else 1e30
        folded = fold(conv, activation.eval())
        assert isinstance(folded, FoldedConv2d)
        bounded = folded._bounds_by_onednn()
        assert (bounded is None) is ("weight" in change)
        given = x.clone()
        given[1, :2, 6, 6] = {"nan": float("nan"), "inf": float("inf"), "overflow": 3e38}.get(
            change, 1.0
        )
        expected = activation(conv(given.contiguous()))
        assert expected.isnan().any() == (change in ("nan", "inf", "nan weight"))
        torch.testing.assert_close(
            folded(given), expected, equal_nan=True, rtol=1e-4, atol=1e-4, msg=change
        )


def test_only_wide_results_are_bounded_by_onednn() -> None:
    for outputs, stride, wanted in ((16, 1, True), (15, 1, False), (16, 2, False), (64, 2, True)):
        conv = nn.Conv2d(8, outputs, 1, stride=stride).eval()
        folded = fold(conv, nn.ReLU().eval())
        assert isinstance(folded, FoldedConv2d)
        assert (folded._bounds_by_onednn() is not None) is wanted
    folded = fold(nn.Conv2d(8, 16, 1).eval(), nn.SiLU().eval())
    assert isinstance(folded, FoldedConv2d)
    assert folded._bounds_by_onednn() is None


@torch.inference_mode()
def test_several_sizes_and_layouts_alternate() -> None:
    conv, norm = parts(32)
    folded = fold(conv, norm)
    assert folded is not None
    for size in (9, 14, 9, 33, 14, 4, 3, 9):
        x = images(32, size)
        for layout in (torch.channels_last, torch.contiguous_format):
            given = x.contiguous(memory_format=layout)
            torch.testing.assert_close(
                folded(given), eager((conv, norm, None), given, None), rtol=1e-4, atol=1e-4
            )


@torch.inference_mode()
def test_packed_weights_follow_the_module() -> None:
    conv, norm = parts(32)
    folded = fold(conv, norm)
    assert isinstance(folded, FoldedConv2d)
    x = images(32)
    before = folded(x)
    assert folded._by_shape
    state = {name: value * 2 for name, value in folded.state_dict().items()}
    folded.load_state_dict(state)
    torch.testing.assert_close(folded(x), 2 * before, rtol=1e-4, atol=1e-4)
    file = io.BytesIO()
    torch.save(folded, file)
    file.seek(0)
    for twin in (copy.deepcopy(folded), torch.load(file, weights_only=False)):
        assert not twin._by_shape
        torch.testing.assert_close(twin(x), folded(x))
    assert folded.double()(x.double()).dtype is torch.float64


def test_input_gradient_equals_the_modules() -> None:
    conv, norm = parts(8, torch.float64)
    folded = fold(conv, norm, nn.SiLU().eval())
    assert folded is not None
    results = []
    for run in (folded, lambda x: eager((conv, norm, nn.SiLU()), x, None)):
        x = torch.arange(2 * 8 * 25, dtype=torch.float64).view(2, 8, 5, 5).sin().requires_grad_()
        run(x).square().sum().backward()
        results.append(x.grad)
    torch.testing.assert_close(*results)


@torch.inference_mode()
def test_a_batch_norm_is_folded_into_a_linear_layer() -> None:
    torch.manual_seed(0)
    linear, norm = nn.Linear(6, 4).eval(), nn.BatchNorm1d(4).eval()
    assert norm.running_mean is not None
    norm.running_mean.normal_()
    folded = fold(linear, norm, nn.ReLU().eval())
    assert isinstance(folded, FoldedLinear)
    x = torch.randn(3, 6)
    torch.testing.assert_close(folded(x), norm(linear(x)).relu(), rtol=1e-5, atol=1e-6)


def test_hooked_and_subclassed_modules_are_not_folded() -> None:
    conv, norm = parts()

    class Custom(nn.Conv2d):
        pass

    hooked = copy.deepcopy(conv)
    hooked.register_forward_hook(lambda *_: None)
    assert fold(Custom(8, 8, 3).eval(), norm) is None
    assert fold(hooked, norm) is None
    assert fold(conv, copy.deepcopy(norm).train()) is None
    assert fold(conv, nn.BatchNorm2d(8, track_running_stats=False).eval()) is None
    assert fold(conv, norm) is not None


@torch.inference_mode()
def test_convolutions_that_fail_in_onednn_are_computed() -> None:
    """A window that reads nothing but padding in one column, with a bias."""
    conv = nn.Conv2d(16, 16, (3, 1), stride=2, padding=1, dilation=2).eval()
    folded = fold(conv)
    assert folded is not None
    x = torch.randn(2, 16, 64, 1).to(memory_format=torch.channels_last)
    expected = conv.double()(x.contiguous().double())
    torch.testing.assert_close(folded(x).double(), expected, rtol=1e-4, atol=1e-4)
