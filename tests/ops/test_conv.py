"""Convolutions: what their rules say, in numbers worked out by hand."""

from __future__ import annotations

import pytest

from cnngraph.ops.conv import Conv2d, ConvTranspose2d
from cnngraph.shape import ShapeError, TensorShape

MAP = TensorShape((6, 11, 7))


def conv(**fields) -> Conv2d:
    return Conv2d.model_validate({"out_channels": 4, "kernel_size": 3, **fields})


def refusal(op, shape: TensorShape = MAP) -> ShapeError:
    with pytest.raises(ShapeError) as raised:
        op.infer(shape)
    assert raised.value.help
    return raised.value


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (9, 5)),
        ({"padding": 1}, (11, 7)),
        ({"stride": 2, "padding": 1}, (6, 4)),
        ({"kernel_size": (1, 7), "padding": (0, 3)}, (11, 7)),
        ({"kernel_size": (7, 1), "stride": (2, 3)}, (3, 3)),
        ({"dilation": 3}, (5, 1)),
        ({"dilation": (1, 2), "padding": (1, 2)}, (11, 7)),
        ({"padding": "valid"}, (9, 5)),
        ({"padding": "same"}, (11, 7)),
        ({"padding": "same", "kernel_size": 4}, (11, 7)),
        ({"padding": "same", "kernel_size": (2, 4), "dilation": (3, 1)}, (11, 7)),
        ({"padding": "same", "padding_mode": "reflect", "kernel_size": 4}, (11, 7)),
    ],
)
def test_sizes(fields, size) -> None:
    assert conv(**fields).infer(MAP) == (4, *size)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_gives_the_size_over_the_stride_rounded_up(size: int, stride: int) -> None:
    op = conv(padding="same", stride=stride)
    assert op.infer(TensorShape((6, size, size))).spatial == (-(-size // stride),) * 2


@pytest.mark.parametrize("fields", [{"groups": 4}, {"groups": 3, "out_channels": 4}])
def test_groups_must_divide_both_channels(fields) -> None:
    error = refusal(conv(**fields))
    assert error.code == "E204"
    assert "in_channels" in error.help


def test_depthwise_weights_and_macs() -> None:
    op = conv(groups=6, out_channels=12, bias=False, padding=1)
    assert op.parameters(MAP) == {"weight": (12, 1, 3, 3)}
    assert op.macs(op.infer(MAP), MAP) == 12 * 11 * 7 * 9


@pytest.mark.parametrize(
    "fields",
    [
        {"kernel_size": (3, 8)},
        {"dilation": 4},
        {"padding": 7, "padding_mode": "reflect"},
        {"padding": 8, "padding_mode": "circular"},
    ],
)
def test_too_small(fields) -> None:
    assert refusal(conv(**fields)).code == "E202"


def test_a_flat_input_has_the_wrong_rank() -> None:
    for op in (conv(), ConvTranspose2d.model_validate({"out_channels": 4, "kernel_size": 3})):
        assert refusal(op, TensorShape((6,))).code == "E203"


def test_transposed() -> None:
    fields = {"out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1}
    op = ConvTranspose2d.model_validate(fields | {"output_padding": (1, 0)})
    assert op.infer(MAP) == (4, 22, 13)
    assert op.parameters(MAP) == {"weight": (6, 4, 3, 3), "bias": (4,)}
    assert refusal(ConvTranspose2d.model_validate(fields | {"output_padding": 2})).code == "E204"
    assert refusal(ConvTranspose2d.model_validate(fields | {"groups": 4})).code == "E204"
    shrunk = ConvTranspose2d.model_validate(fields | {"stride": 1, "padding": 5})
    assert refusal(shrunk).code == "E202"
