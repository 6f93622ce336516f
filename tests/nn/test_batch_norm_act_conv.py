"""The convolution that keeps its batch norm's input alone: equal results, less memory."""

from __future__ import annotations

import pytest
import torch
from conftest import SPECS
from torch import Tensor, nn

import cnngraph
from cnngraph import kernels
from cnngraph.bench.devices import peak_of_tensors
from cnngraph.nn import batch_norm_act_conv

ACTIVATIONS = [nn.ReLU(), nn.SiLU(), nn.LeakyReLU(0.2), nn.Hardswish(), nn.PReLU()]


def parts(dtype: torch.dtype = torch.float64) -> tuple[nn.BatchNorm2d, nn.Conv2d, Tensor]:
    torch.manual_seed(0)
    norm, conv = nn.BatchNorm2d(6, dtype=dtype), nn.Conv2d(6, 8, 3, padding=1, dtype=dtype)
    return norm, conv, torch.randn(3, 6, 9, 7, dtype=dtype)


def gradients(run, norm: nn.Module, conv: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    result = run(x)
    weights = torch.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).view_as(result)
    inputs = [x, *norm.parameters(), *conv.parameters()]
    return [
        result.detach(),
        *torch.autograd.grad((result * weights).sum(), inputs, create_graph=False),
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_results_gradients_and_statistics_are_those_of_the_modules(
    activation, training: bool, layout
) -> None:
    norm, conv, x = parts()
    x = x.to(memory_format=layout)
    activation = activation.double()
    norm.train(training)
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    expected = gradients(lambda x: conv(activation(norm(x))), norm, conv, x)
    statistics = {key: value.clone() for key, value in norm.state_dict().items()}
    norm.load_state_dict(before)
    found = gradients(lambda x: batch_norm_act_conv(norm, activation, conv, x), norm, conv, x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    for key, value in norm.state_dict().items():
        torch.testing.assert_close(value, statistics[key], msg=key)


def test_second_derivatives_and_a_second_backward() -> None:
    norm, conv, x = parts()

    def penalty(run) -> list[Tensor]:
        inner = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(run(inner).sin().sum(), inner, create_graph=True)
        loss = first.square().sum()
        loss.backward(retain_graph=True)
        once = inner.grad.clone()  # pyright: ignore[reportOptionalMemberAccess]
        loss.backward()
        return [once, inner.grad]  # pyright: ignore[reportReturnType]

    found = penalty(lambda x: batch_norm_act_conv(norm, nn.SiLU(), conv, x))
    expected = penalty(lambda x: conv(nn.SiLU()(norm(x))))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not loaded: everything is kept"
)
def test_the_activation_is_not_kept() -> None:
    """With 64 channels before and 8 after the convolution, all but a tenth is the input and the
    activation."""
    norm, relu, conv = nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 8, 1)
    x = torch.randn(4, 64, 64, 64, requires_grad=True)
    size = x.numel() * x.element_size()

    def kept_by(run) -> float:
        results: list[Tensor] = []
        before = allocated(lambda: None)
        return (allocated(lambda: results.append(run())) - before) / size

    assert kept_by(lambda: batch_norm_act_conv(norm, relu, conv, x)) < 0.3
    assert kept_by(lambda: conv(relu(norm(x)))) > 0.9


def allocated(run) -> int:
    """Bytes that `run` leaves allocated."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as recorded:
        run()
    events = recorded.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    return sum(event.nbytes() for event in events if event.name() == "[memory]")


@pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not loaded: everything is kept"
)
def test_a_lean_densenet_needs_much_less() -> None:
    peaks = []
    for options in ({"memory": "lean"}, {"memory": "fast"}, {"backend": "eager"}):
        network = cnngraph.compile(SPECS / "densenet121.yaml", **options)  # pyright: ignore[reportArgumentType]
        batch = torch.randn(2, 3, 160, 160)
        network(batch).sum().backward()
        network.zero_grad()
        peaks.append(
            peak_of_tensors(lambda network=network, batch=batch: network(batch).sum().backward())
        )
    lean, fast, eager = peaks
    assert lean < 0.8 * fast
    assert fast < 0.6 * eager
