"""What modules do in Python is followed: types, arguments, shapes, hooks and changes in place."""

from __future__ import annotations

from collections.abc import Callable

import hand_written_python as written
import pytest
import torch
from table import with_statistics
from torch import nn

from cnngraph import CnngraphError
from cnngraph.importer import from_module

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("make", "images"),
    [
        (written.AsksForTypes, 1),
        (written.BranchesOnShapes, 1),
        (written.TakesAnything, 2),
        (written.ChangesInPlace, 1),
        (written.Recomputes, 1),
        (written.hooked, 1),
    ],
)
def test_module_computes_the_same(make: Callable[[], nn.Module], images: int) -> None:
    module = with_statistics(make())
    network = from_module(module, [(3, 16, 16)] * images).compile(backend="eager").eval()
    assert list(network.state_dict()) == list(module.state_dict())
    inputs = [torch.randn(2, 3, 16, 16) for _ in range(images)]
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), module(*inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (written.ChangesAView, "it uses another view of a tensor that was changed in place"),
        (written.ChangesAPart, "`__setitem__` changes a tensor in place"),
        (written.ChangesItsWeight, "it sets `data` of a tensor"),
        (written.UsesAnothersWeight, "it uses a parameter that is not one of its own"),
    ],
)
def test_what_cannot_be_followed_is_named_with_its_place(
    make: type[nn.Module], message: str
) -> None:
    expected = rf"hand_written_python.py:\d+: the module cannot be traced: {message}"
    with pytest.raises(CnngraphError, match=expected):
        from_module(make(), (3, 16, 16))


def test_module_that_fails_by_itself_is_named_so(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(10, 2))
    expected = r"the module does not run with \[2, 3, 8, 8\]: mat1 and mat2 shapes cannot be"
    with pytest.raises(CnngraphError, match=expected) as error:
        from_module(module, (3, 8, 8))
    assert "help" not in str(error.value)
    assert not caplog.records


def test_parameter_with_two_names_is_an_error() -> None:
    with pytest.raises(CnngraphError, match=r"`other.weight` is the same tensor as `conv.weight`"):
        from_module(written.TiesWeights(), (3, 16, 16))


def test_buffers_that_a_call_changes_stay() -> None:
    module = written.CountsCalls()
    from_module(module, (3, 16, 16))
    assert module.calls == 0


def test_modules_are_not_changed() -> None:
    module = written.Recomputes()
    from_module(module, (3, 16, 16))
    assert "forward" not in vars(module.conv)


@pytest.mark.parametrize(
    ("input", "message"),
    [
        ({"y": (3, 8, 8)}, r"`forward` has no argument `y`, it has `x`"),
        ([(3, 8, 8), (3, 8, 8)], r"`forward` takes only `x`, but 2 inputs are given"),
    ],
)
def test_inputs_that_forward_does_not_take_are_errors(input: object, message: str) -> None:
    with pytest.raises(CnngraphError, match=message):
        from_module(written.Recomputes(), input)  # pyright: ignore[reportArgumentType]
