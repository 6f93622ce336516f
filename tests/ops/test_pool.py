"""Pooling: the corners of `ceil_mode`, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnngraph.ops import OPS
from cnngraph.shape import ShapeError, TensorShape

WINDOWS = ["max_pool2d", "avg_pool2d"]


def pooled(kind: str, size: int, **fields) -> int:
    _, height, width = OPS[kind].model_validate(fields).infer(TensorShape((2, size, size)))
    assert height == width
    return height


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize(
    ("size", "fields", "floor", "ceil"),
    [
        (6, {"kernel_size": 3, "stride": 2}, 2, 3),
        (7, {"kernel_size": 3, "stride": 2}, 3, 3),
        (112, {"kernel_size": 3, "stride": 2}, 55, 56),
        (5, {"kernel_size": 2}, 2, 3),
        # a last window that would start in the right padding is dropped, whatever ceil_mode says
        (5, {"kernel_size": 2, "stride": 2, "padding": 1}, 3, 3),
        (4, {"kernel_size": 1, "stride": 3}, 2, 2),
        (6, {"kernel_size": 1, "stride": 4}, 2, 2),
        (1, {"kernel_size": 1, "stride": 3}, 1, 1),
        (4, {"kernel_size": 2, "stride": 3, "padding": 1}, 2, 2),
    ],
)
def test_ceil_mode(kind: str, size: int, fields: dict[str, int], floor: int, ceil: int) -> None:
    assert pooled(kind, size, **fields) == floor
    assert pooled(kind, size, **fields, ceil_mode=True) == ceil


@pytest.mark.parametrize("kind", WINDOWS)
def test_the_stride_is_the_kernel_size_by_default(kind: str) -> None:
    assert OPS[kind].model_validate({"kernel_size": (3, 2)}).infer(TensorShape((2, 12, 12))) == (
        2,
        4,
        6,
    )


@pytest.mark.parametrize("kind", WINDOWS)
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"kernel_size": 3, "padding": 2}, "E204"),
        ({"kernel_size": (4, 2), "padding": (1, 2)}, "E204"),
        ({"kernel_size": 9}, "E202"),
        ({"kernel_size": (1, 9)}, "E202"),
    ],
)
def test_refusals(kind: str, fields, code: str) -> None:
    with pytest.raises(ShapeError) as raised:
        OPS[kind].model_validate(fields).infer(TensorShape((2, 8, 8)))
    assert raised.value.code == code
    assert raised.value.help


@given(
    size=st.integers(1, 7), kernel=st.integers(1, 6), stride=st.integers(1, 5), padding=st.integers(0, 3),
    dilation=st.integers(1, 8), ceil_mode=st.booleans(),
)  # fmt: skip
@settings(max_examples=500, deadline=None)
def test_no_window_of_padding_only(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> None:
    """What is accepted has a position of the input in each window; what E204 refuses has a window
    without."""
    fields = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": min(padding, kernel // 2),
        "dilation": dilation,
    }
    op = OPS["max_pool2d"].model_validate({**fields, "ceil_mode": ceil_mode})
    starts = range(-fields["padding"], size, stride)
    seen = [any(0 <= start + step * dilation < size for step in range(kernel)) for start in starts]
    try:
        _, count, _ = op.infer(TensorShape((1, size, size)))
    except ShapeError as error:
        assert error.code == "E202" or not all(seen)
    else:
        assert all(seen[:count])


@pytest.mark.parametrize("kind", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_adaptive_sizes_may_be_kept(kind: str) -> None:
    shape = TensorShape((2, 8, 5))
    assert OPS[kind].model_validate({"output_size": 7}).infer(shape) == (2, 7, 7)
    assert OPS[kind].model_validate({"output_size": (None, 1)}).infer(shape) == (2, 8, 1)
