"""The max_pool2d operators against torch's own functions, to the bit."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import on_every_device
from hypothesis import given, settings
from hypothesis import strategies as st

from cnngraph import kernels
from cnngraph.kernels.max_pool2d import max_pool2d

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

op = torch.ops.cnngraph.max_pool2d if kernels.available() else None

WINDOWS = {
    "3x3 stride 2": ((3, 3), (2, 2), (1, 1), (1, 1)),
    "3x3 stride 1": ((3, 3), (1, 1), (1, 1), (1, 1)),
    "2x2": ((2, 2), (2, 2), (0, 0), (1, 1)),
    "apart": ((2, 2), (3, 4), (0, 1), (1, 1)),
    "uneven and dilated": ((3, 2), (2, 1), (1, 0), (2, 3)),
    "large": ((5, 3), (3, 2), (2, 1), (1, 1)),
    "15x17": ((15, 17), (1, 2), (7, 8), (1, 1)),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_window = pytest.mark.parametrize("window", WINDOWS.values(), ids=list(WINDOWS))
every_layout = pytest.mark.parametrize(
    "channels_last", [False, True], ids=["contiguous", "channels_last"]
)
with_or_without_relu = pytest.mark.parametrize("relu", [False, True], ids=["", "relu"])


def values(shape, dtype=torch.float32, channels_last=False, seed=0, device="cpu"):
    """With many equals, infinities and NaN."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(2).round().div(2)
    x.view(-1)[::17] = float("-inf")
    x.view(-1)[5::97] = float("inf")
    x.view(-1)[11::89] = float("nan")
    x[0, 0] = float("-inf")
    x = x.to(device, dtype)
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def pooled(x, window, ceil_mode, relu):
    return F.max_pool2d(x.relu() if relu else x, *window, ceil_mode)


def assert_same_step(x, window, ceil_mode, relu):
    ours, torchs = x.detach().requires_grad_(), x.detach().double().requires_grad_()
    y = op(ours, *window, ceil_mode, relu, True)[0]
    expected = pooled(torchs, window, ceil_mode, relu)
    assert y.dtype == x.dtype
    assert torch.equal(y.isnan(), expected.isnan())
    assert torch.equal(y.nan_to_num(7), expected.to(x.dtype).nan_to_num(7))
    assert torch.equal(op(x, *window, ceil_mode, relu, False)[0].nan_to_num(7), y.nan_to_num(7))
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(x)
    y.backward(grad)
    expected.backward(grad.double())
    rounding = {torch.float32: 1e-6, torch.float64: 1e-13}.get(x.dtype, 1e-2)
    torch.testing.assert_close(ours.grad.double(), torchs.grad, rtol=rounding, atol=rounding)
    return y, ours.grad


@with_or_without_relu
@every_layout
@on_every_device(*DTYPES)
@every_window
def test_equals_torch(window, device, dtype, channels_last, relu):
    for shape in ((2, 3, 13, 17), (2, 19, 9, 8), (1, 64, 7, 7), (3, 1, 40, 30)):
        for ceil_mode in (False, True):
            x = values(shape, dtype, channels_last, device=device)
            y, gradient = assert_same_step(x, window, ceil_mode, relu)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            assert y.is_contiguous(memory_format=layout)
            assert gradient.is_contiguous(memory_format=layout)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_window(data, device):
    kernel = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    dilation = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [data.draw(st.integers(max(s, d), s + 20)) for s, d in zip(spans, dilation, strict=True)]
    shape = (2, data.draw(st.integers(1, 40)), *size)
    x = values(shape, data.draw(st.sampled_from(DTYPES)), data.draw(st.booleans()), device=device)
    assert_same_step(
        x, (kernel, stride, padding, dilation), data.draw(st.booleans()), data.draw(st.booleans())
    )


@every_layout
@every_dtype
def test_one_byte_per_value_is_saved(dtype, channels_last):
    x = values((2, 5, 12, 12), dtype, channels_last).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append((t.dtype, t.numel())), lambda _: None
    ):
        y = max_pool2d(x, *WINDOWS["2x2"], False, True)
    assert saved == [(torch.uint8, y.numel())]


def test_indices_are_positions_in_the_window_and_tell_where_a_relu_is_closed():
    x = torch.tensor([[1.0, 3.0, -1.0, -2.0], [3.0, 2.0, -3.0, -1.0]]).reshape(1, 1, 2, 4)
    for relu, expected in ((False, [1, 0]), (True, [1, 255])):
        assert op(x, *WINDOWS["2x2"], False, relu, True)[1].flatten().tolist() == expected
    assert op(x, *WINDOWS["2x2"], False, False, False)[1].shape == (0,)


@pytest.mark.slow
@with_or_without_relu
@every_layout
@every_window
def test_gradcheck(window, channels_last, relu):
    shape = (2, 3, 9, 11)
    x = (
        torch.randperm(594, generator=torch.Generator().manual_seed(0)).reshape(shape).double() / 50
        - 4.013
    )
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x

    def ours(x):
        return op(x, *window, True, relu, True)[0]

    assert torch.autograd.gradcheck(ours, x.requires_grad_())
    assert torch.autograd.gradgradcheck(ours, x)


def test_same_bits_for_any_number_of_threads():
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append([
                tensor.nan_to_num(7)
                for last in (False, True)
                for tensor in assert_same_step(values((4, 24, 40, 40), channels_last=last), WINDOWS["3x3 stride 1"], False, True)
            ])  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("how", ["transposed", "sliced", "expanded"])
def test_other_strides(how, device):
    wide = values((4, 8, 12, 14), device=device)
    x = {
        "transposed": wide.transpose(2, 3),
        "sliced": wide[:, 1:6, ::2],
        "expanded": wide[:1].expand(3, -1, -1, -1),
    }[how]
    assert_same_step(x, WINDOWS["3x3 stride 2"], True, False)
    y = op(
        values((2, 4, 8, 8), device=device).requires_grad_(), *WINDOWS["2x2"], False, False, True
    )[0]
    y.backward(torch.randn_like(y).transpose(2, 3))


def test_forward_mode_is_refused_by_the_operator():
    x = torch.randn(1, 2, 4, 4)
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(lambda x: op(x, *WINDOWS["2x2"], False, False, False)[0], (x,), (x,))


def test_wrong_arguments_are_named():
    x = torch.randn(2, 3, 8, 8)
    for window in (
        ((2, 2), (0, 2), (0, 0), (1, 1)),
        ((2, 2), (2, 2), (2, 0), (1, 1)),
        ((9, 9), (1, 1), (0, 0), (1, 1)),
    ):
        with pytest.raises(RuntimeError) as theirs:
            F.max_pool2d(x, *window)
        with pytest.raises(RuntimeError) as ours:
            op(x, *window, False, False, False)
        assert str(ours.value).splitlines()[0] == str(theirs.value).splitlines()[0]
    with pytest.raises(RuntimeError, match="may have 255 positions"):
        op(x, (16, 16), (1, 1), (8, 8), (1, 1), False, False, False)
    with pytest.raises(RuntimeError, match="expected an input of 4 dimensions"):
        op(x[0], *WINDOWS["2x2"], False, False, False)
    with pytest.raises(NotImplementedError, match="not implemented for"):
        op(x.int(), *WINDOWS["2x2"], False, False, False)
    backward = torch.ops.cnngraph.max_pool2d_backward
    with pytest.raises(
        RuntimeError, match="the indices must be bytes, one for each of the gradient"
    ):
        backward(x, x, 16, 16, *WINDOWS["2x2"])


@every_layout
def test_invalid_indices_write_only_into_the_result(channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    grad = torch.ones(2, 3, 4, 4).contiguous(memory_format=layout)
    for index in (0, 8, 9, 200, 254):
        indices = torch.full_like(grad, index, dtype=torch.uint8)
        result = torch.ops.cnngraph.max_pool2d_backward(
            grad, indices, 7, 7, *WINDOWS["3x3 stride 2"]
        )
        assert result.isfinite().all()
        assert result.sum() <= (0 if index > 8 else grad.sum())


@every_layout
@with_or_without_relu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype, relu, channels_last):
    x = torch.randn(2, 5, 9, 9).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    window = WINDOWS["3x3 stride 2"]
    for ceil_mode, wanted in itertools.product((False, True), repeat=2):
        torch.library.opcheck(op, (x, *window, ceil_mode, relu, wanted))
    torch.library.opcheck(op, (x.clone().requires_grad_(), *window, False, relu, True))
    y, indices = op(x, *window, False, relu, True)
    gradient = torch.ops.cnngraph.max_pool2d_backward
    torch.library.opcheck(gradient, (torch.randn_like(y), indices, 9, 9, *window))
    torch.library.opcheck(gradient, (torch.randn_like(y).requires_grad_(), indices, 9, 9, *window))


def test_compiled():
    compiled_autograd = pytest.importorskip("torch._dynamo.compiled_autograd")
    x = torch.randn(2, 5, 9, 9)

    def step(run):
        leaf = x.clone().requires_grad_()
        run(leaf).square().sum().backward()
        return leaf.grad

    def ours(x):
        return op(x, *WINDOWS["3x3 stride 2"], False, True, True)[0] * 2

    expected = step(ours)
    assert expected.abs().max() > 0
    torch.testing.assert_close(
        step(torch.compile(ours, backend="aot_eager", fullgraph=True)), expected
    )
    with compiled_autograd._enable(torch.compile(backend="aot_eager", dynamic=False)):
        torch.testing.assert_close(step(ours), expected)
