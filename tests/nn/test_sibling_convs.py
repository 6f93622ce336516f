"""Convolutions of one input, run as one: each module must mean what it means alone."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import operators_of, result_and_gradients
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cnngraph.nn import sibling_convs

pytestmark = pytest.mark.usefixtures("convolutions_of_any_size")


def convs_of(bias: bool = False, channels: tuple[int, ...] = (8, 3, 5), **settings: Any) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Conv2d(16, number, 1, bias=bias, **settings) for number in channels)


def apart(convs: nn.ModuleList, x: Tensor) -> list[Tensor]:
    return [conv(x) for conv in convs]


def together(convs: nn.ModuleList, x: Tensor) -> list[Tensor]:
    return list(sibling_convs(list(convs), x))


def side_by_side(run: Callable[[nn.ModuleList, Tensor], list[Tensor]], convs: nn.ModuleList, x: Tensor) -> list[Tensor]:
    return result_and_gradients(lambda x: torch.cat(run(convs, x), -3), convs, x)


def convolutions(convs: nn.ModuleList, x: Tensor) -> int:
    return sum("conv" in str(operator) for operator in operators_of(lambda: together(convs, x)))


INPUT = torch.randn(3, 16, 7, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_results_and_gradients_are_the_modules(bias: bool, dtype: torch.dtype, layout: torch.memory_format) -> None:
    convs, x = convs_of(bias).to(dtype), INPUT.to(dtype).to(memory_format=layout)
    assert convolutions(convs, x) == 1
    tolerance = {"rtol": 2e-2, "atol": 1e-1} if dtype is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    for one, other in zip(side_by_side(together, convs, x), side_by_side(apart, convs, x), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_results_are_slices_of_one_map() -> None:
    x = INPUT.to(memory_format=torch.channels_last)
    maps = together(convs_of(), x)
    assert len({part.untyped_storage().data_ptr() for part in maps}) == 1
    assert {part.stride() for part in maps} == {(16 * 35, 1, 16 * 5, 16)}
    assert [part.shape for part in together(convs_of(), x[0])] == [(8, 7, 5), (3, 7, 5), (5, 7, 5)]  # an image alone


def test_autocast_casts_as_it_does_for_torchs() -> None:
    convs = convs_of(bias=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolutions(convs, INPUT) == 1
        found, expected = side_by_side(together, convs, INPUT), side_by_side(apart, convs, INPUT)
    assert [value.dtype for value in found] == [value.dtype for value in expected]
    assert found[0].dtype is torch.bfloat16
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-1)


class Together(nn.Module):
    def __init__(self, convs: nn.ModuleList) -> None:
        super().__init__()
        self.convs = convs

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(together(self.convs, x), 1)


class Doubled(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def hooked(convs: nn.ModuleList) -> None:
    convs[1].register_forward_hook(lambda module, inputs, output: output * 3)


def replaced(convs: nn.ModuleList) -> None:
    convs[1] = Doubled(16, 3, 1, bias=False)


def strided(convs: nn.ModuleList) -> None:
    convs[1] = nn.Conv2d(16, 3, 1, padding=1)


def biased(convs: nn.ModuleList) -> None:
    convs[1] = nn.Conv2d(16, 3, 1)


def grouped(convs: nn.ModuleList) -> None:
    for index in range(3):
        convs[index] = nn.Conv2d(16, 4, 1, groups=2)


@pytest.mark.parametrize("change", [hooked, replaced, biased, grouped])
def test_what_one_convolution_cannot_stand_for_runs_as_it_is(change: Callable[[nn.ModuleList], None]) -> None:
    convs = convs_of()
    change(convs)
    assert convolutions(convs, INPUT) == 3
    for one, other in zip(side_by_side(together, convs, INPUT), side_by_side(apart, convs, INPUT), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_frozen_ones_get_no_gradient_and_cost_none() -> None:
    convs = convs_of()
    convs[1].requires_grad_(False)
    assert convolutions(convs, INPUT) == 3
    torch.cat(together(convs, INPUT), 1).sum().backward()
    assert [conv.weight.grad is None for conv in convs] == [False, True, False]  # pyright: ignore[reportAttributeAccessIssue]
    convs.requires_grad_(False)
    assert convolutions(convs, INPUT) == 1
    assert not any(part.requires_grad for part in together(convs, INPUT))


def test_a_result_that_nothing_reads_gets_no_gradient_from_the_others() -> None:
    convs = convs_of()
    together(convs, INPUT)[0].sum().backward()
    expected = copy.deepcopy(convs)
    expected.zero_grad()
    apart(expected, INPUT)[0].sum().backward()
    torch.testing.assert_close(convs[0].weight.grad, expected[0].weight.grad)
    assert not convs[1].weight.grad.any()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


def test_the_copy_of_their_weights_is_not_kept_and_they_must_not_change() -> None:
    convs = convs_of().double()
    results = together(convs, INPUT.double())
    assert results[0].grad_fn is not None
    conv = results[0].grad_fn.next_functions[0][0]  # below the split
    kept = [conv._saved_weight, conv._saved_weight]  # pyright: ignore[reportAttributeAccessIssue]
    assert len({weight.data_ptr() for weight in kept}) == 2  # computed each time
    with torch.no_grad():
        convs[1].weight.add_(1)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(results[0].sum(), list(convs.parameters()))


def test_what_else_is_kept_must_not_change_either() -> None:
    convs, x = convs_of(), INPUT * 1
    results = together(convs, x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(results[0].sum(), list(convs.parameters()))


def test_a_checkpoint_around_them_keeps_no_more_than_it_reads() -> None:
    convs = convs_of().requires_grad_()
    inner: list[Any] = []

    def run(x: Tensor) -> Tensor:
        value = x * 2
        inner.append(weakref.ref(value.untyped_storage()))
        return torch.cat(together(convs, value), 1)

    x = INPUT.clone().requires_grad_()
    found = checkpoint(run, x, use_reentrant=False)
    gc.collect()
    assert inner[0]() is None
    given = [x, *convs.parameters()]
    expected = torch.autograd.grad(run(x).square().sum(), given)
    for one, other in zip(torch.autograd.grad(found.square().sum(), given), expected, strict=True):  # pyright: ignore
        torch.testing.assert_close(one, other)


def test_gradients_of_gradients_are_the_modules() -> None:
    convs = convs_of(bias=True).double()
    found = []
    for run in (together, apart):
        x = INPUT.double().requires_grad_()
        value = torch.cat(run(convs, x), 1).sin().sum()
        first = torch.autograd.grad(value, [x, *convs.parameters()], create_graph=True)
        second = sum(gradient.square().sum() for gradient in first)
        found.append(torch.autograd.grad(second, [x, *convs.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_transforms_get_what_they_expect() -> None:
    convs = convs_of()

    def loss(x: Tensor) -> Tensor:
        return torch.cat(together(convs, x), 1).square().sum()

    expected = torch.autograd.functional.jacobian(loss, INPUT)
    torch.testing.assert_close(torch.func.grad(loss)(INPUT), expected)
    _, tangent = torch.func.jvp(loss, (INPUT,), (torch.ones_like(INPUT),))
    torch.testing.assert_close(tangent, expected.sum(), rtol=1e-4, atol=1e-3)

    def loss_of_parameters(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(Together(convs), parameters, INPUT).square().sum()

    parameters = {f"convs.{name}": parameter.detach() for name, parameter in convs.named_parameters()}
    found = torch.func.grad(loss_of_parameters)(parameters)
    loss(INPUT).backward()
    for name, parameter in convs.named_parameters():
        torch.testing.assert_close(found[f"convs.{name}"], parameter.grad)


def test_errors_are_torchs() -> None:
    with pytest.raises(RuntimeError, match="to have 16 channels, but got 15 channels"):
        together(convs_of(), torch.randn(1, 15, 8, 8))
