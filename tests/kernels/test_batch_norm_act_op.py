"""The batch_norm_act operators against torch's own functions in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from conftest import in_subprocess, on_every_device
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnngraph import kernels
from cnngraph.kernels.batch_norm_act import batch_norm_act, update_running_statistics

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": F.relu,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardsigmoid": lambda z: (
        F.hardtanh(z + 3, 0, 6) / 6
    ),  # torch's own has a float32 1/6 in float64
    "hardswish": F.hardswish,
    "mish": F.mish,
}
ARGUMENTS = {"leaky_relu": (0.1,), "elu": (1.3,), "hardtanh": (-0.5, 0.7)}
CASES = [(name, ARGUMENTS.get(name, ())) for name in ACTIVATIONS]
# Where the derivative jumps, a value off by one rounding may fall on the other side.
KINKS = {
    "relu": (0.0,),
    "hardtanh": (-0.5, 0.7),
    "leaky_relu": (0.0,),
    "elu": (0.0,),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
}
SHAPES = [(4, 37, 9, 11), (3, 16, 5, 7), (64, 10), (2, 3, 33), (16, 64, 1, 1), (16, 3, 20, 20)]
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12, torch.bfloat16: 8e-3, torch.float16: 1e-3}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def tensors(shape, dtype=torch.float32, channels_last=False, affine=True, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x, grad = (draw(*shape) * 3 + 1).to(dtype), draw(*shape).to(dtype)
    if channels_last:
        x, grad = (t.movedim(1, -1).contiguous().movedim(-1, 1) for t in (x, grad))
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    weight = (draw(shape[1]).abs() + 0.5).to(parameters) if affine else None
    bias = draw(shape[1]).to(parameters) if affine else None
    mean, var = draw(shape[1]).to(parameters), (draw(shape[1]).abs() + 0.5).to(parameters)
    return [t if t is None else t.to(device) for t in (x, grad, weight, bias, mean, var)]


def grads_of(function, x, weight, bias, grad):
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    y = function(*leaves, *([None] * (3 - len(leaves))))
    y.backward(grad.to(y.dtype))
    return y.detach(), [leaf.grad for leaf in leaves]


def eager(name, arguments, mean, var, eps=1e-5):
    def function(x, weight, bias):
        z = F.batch_norm(x, mean, var, weight, bias, mean is None, 0.1, eps)
        return ACTIVATIONS[name](z, *arguments)

    return function


def error_of(actual, expected):
    return ((actual.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


def double(tensor):
    return None if tensor is None else tensor.double()


def keep_off_kinks(name, x, weight, bias, mean, var):
    """x moved so that no z = batch_norm(x) is within rounding of a kink."""
    for kink in KINKS.get(name, ()):
        z = F.batch_norm(x.double(), double(mean), double(var), double(weight), double(bias),
                         mean is None)  # fmt: skip
        x = torch.where((z - kink).abs() < 1e-4, x + x.abs() * 0.02 + 0.02, x)
    return x


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@on_every_device(*DTYPES)
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_equals_torch_in_float64(name, arguments, device, dtype, channels_last, training):
    for index, shape in enumerate(SHAPES):
        for affine in (True, False) if index < 2 else (True,):
            x, grad, weight, bias, mean, var = tensors(
                shape, dtype, channels_last, affine, device=device
            )
            if training:
                mean = var = None
            x = keep_off_kinks(name, x, weight, bias, mean, var)

            def ours(x, w, b, mean=mean, var=var):
                return batch_norm_act(x, w, b, mean, var, 1e-5, name, arguments)[0]

            expected = eager(name, arguments, double(mean), double(var))
            y, grads = grads_of(ours, x, weight, bias, grad)
            y64, grads64 = grads_of(expected, x.double(), double(weight), double(bias), grad)
            assert y.dtype == dtype
            assert y.stride() == x.stride()
            assert grads[0].stride() == x.stride()
            assert error_of(y, y64) < TOLERANCE[dtype]
            for actual, wanted in zip(grads, grads64, strict=True):
                assert error_of(actual, wanted) < TOLERANCE[dtype]


INF, NAN = float("inf"), float("nan")
# The limits at -inf and inf, NaN where the definition is inf * 0 or inf / inf there.
AT_INFINITY = {
    "identity": (-INF, INF),
    "relu": (0, INF),
    "hardtanh": (-0.5, 0.7),
    "leaky_relu": (-INF, INF),
    "elu": (-1.3, INF),
    "silu": (NAN, INF),
    "gelu": (NAN, INF),
    "gelu_tanh": (NAN, INF),
    "sigmoid": (0, 1),
    "tanh": (-1, 1),
    "hardsigmoid": (0, 1),
    "hardswish": (NAN, INF),
    "mish": (NAN, INF),
}


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[name for name, _ in CASES])
@on_every_device(*DTYPES)
def test_kinks_nan_and_infinity(name, arguments, device, dtype):
    special = [0.0, -0.0, 3.0, -3.0, 6.0, -0.5, 1.0, 20.0, 50.0, -50.0, 100.0, -100.0, 1e4, -1e4]
    z = torch.tensor([*special, -INF, INF, NAN], dtype=dtype, device=device)
    x = z.reshape(1, -1).repeat(2, 1).requires_grad_()
    zero, one = torch.zeros_like(z), torch.ones_like(z)
    y, _, _ = batch_norm_act(x, None, None, zero, one, 0.0, name, arguments)
    y.sum().backward()
    finite = z[: len(special)].cpu().double().requires_grad_()
    expected = ACTIVATIONS[name](finite, *arguments)
    expected.sum().backward()
    expected = torch.cat([expected.detach(), torch.tensor([*AT_INFINITY[name], NAN]).double()])
    rtol, atol = (1e-2, 1e-2) if dtype.itemsize == 2 else (1e-6, 2e-7)
    torch.testing.assert_close(y[0].cpu().double(), expected, equal_nan=True, rtol=rtol, atol=atol)
    gradient = x.grad[0, : len(special)].cpu().double()
    torch.testing.assert_close(gradient, finite.grad, rtol=rtol, atol=atol)


@pytest.mark.parametrize("shape", [(4, 5, 6, 6), (8, 5), (2, 5, 9)], ids=str)
def test_infinity_and_nan_reach_the_statistics_of_their_channel_only(shape):
    x, *_ = tensors(shape)
    x[0, 1] = float("inf")
    x[1, 2] = float("nan")
    y, mean, var = batch_norm_act(x, None, None, None, None, 1e-5, "relu")
    others = [0, 3, 4]
    expected = F.relu(F.batch_norm(x[:, others].double(), None, None, training=True))
    assert error_of(y[:, others], expected) < TOLERANCE[torch.float32]
    assert y[:, 1:3].isnan().all()
    assert mean[1] == INF
    assert mean[2].isnan()
    assert var[1].isnan()
    assert var[2].isnan()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "rows"])
@pytest.mark.parametrize("center", [0.0, 1.0, 1e3], ids=lambda c: f"mean={c:g}")
def test_statistics_of_a_million_values(layout, center, device):
    generator = torch.Generator().manual_seed(1)
    values = (torch.randn(1_000_000, 3, generator=generator).abs() + center).to(device)
    x = values if layout == "rows" else values.reshape(10, 400, 250, 3).permute(0, 3, 1, 2)
    if layout == "contiguous":
        x = x.contiguous()
    _, mean, var = batch_norm_act(x, None, None, None, None, 1e-5, "identity")
    exact = values.double()
    assert error_of(mean, exact.mean(0)) < 1e-7
    assert error_of(var, exact.var(0, correction=0)) < 1e-6


def first_values_far_from_the_rest():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(16, 64, 56, 56, generator=generator)
    for name, first in {
        "pixel": (slice(1), slice(None), slice(1), slice(1)),
        "pixels": (slice(1), slice(None), slice(1), slice(8)),
        "row": (slice(1), slice(None), slice(1)),
        "sample": (slice(1),),
    }.items():
        x = noise * 1e-2 + 100
        x[first] = 0
        yield f"{name} of zeros", x
    x = noise.clone()
    x[:1, :, :1, :8] = 1e6
    yield "huge pixels", x
    yield "small maps", (noise * 1e-2 + 100)[..., :7, :7].index_fill(2, torch.tensor([0]), 0.0)
    yield "samples of growing mean", noise * 1e-2 + torch.linspace(0, 1e3, 16).reshape(-1, 1, 1, 1)
    yield "rows of growing mean", noise * 1e-2 + torch.linspace(0, 1e3, 56).reshape(-1, 1)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_statistics_wherever_the_first_values_lie(channels_last, device):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for what, x in first_values_far_from_the_rest():
        x = x.to(device)
        _, mean, var = batch_norm_act(
            x.contiguous(memory_format=layout), None, None, None, None, 1e-5, "identity"
        )
        exact_var, exact_mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
        assert ((var - exact_var).abs() / exact_var).max() < 1e-6, what
        assert (
            (mean - exact_mean).abs() < 1e-7 * exact_mean.abs() + 1e-6 * exact_var.sqrt()
        ).all(), what


def test_bias_gradient_of_a_million_values():
    x, grad, weight, bias, *_ = tensors((1_000_000, 2))
    grad = grad.abs()
    _, grads = grads_of(
        lambda x, w, b: batch_norm_act(x, w, b, None, None, 1e-5, "identity")[0],
        x, weight, bias, grad,
    )  # fmt: skip
    assert error_of(grads[2], grad.double().sum(0)) < 1e-6


@pytest.mark.parametrize("channels_last", [False, True])
def test_same_bits_for_any_number_of_threads(channels_last):
    x, grad, weight, bias, *_ = tensors((8, 24, 30, 30), channels_last=channels_last)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            y, grads = grads_of(
                lambda x, w, b: batch_norm_act(x, w, b, None, None, 1e-5, "silu")[0],
                x, weight, bias, grad,
            )  # fmt: skip
            results.append([y, *grads])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(9, 64, 88, 88), (9, 60, 91, 87), (9, 24, 145, 145)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_larger_than_the_cache_is_computed_as_its_parts(
    dtype, shape, channels_last, added
):
    samples = -(-shape[0] * 4 // dtype.itemsize)  # 17 MiB: from 16 on it is written past the cache
    x, grad, weight, bias, mean, var = tensors((samples, *shape[1:]), dtype, channels_last)
    residual = x.flip(0) if added else None

    def step(rows):
        inputs = [t[rows].detach().requires_grad_() for t in (x, residual) if t is not None]
        output = batch_norm_act(inputs[0], weight, bias, mean, var, 1e-5, "silu", (), *inputs[1:])[
            0
        ]
        output.backward(grad[rows])
        return [output, *(t.grad for t in inputs)]

    half = samples // 2
    parts = zip(step(slice(half)), step(slice(half, None)), strict=True)
    for whole, halves in zip(step(slice(None)), parts, strict=True):
        assert torch.equal(whole, torch.cat(halves))


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, None])
@on_every_device(*DTYPES)
def test_running_statistics_are_updated_as_torch_does(dtype, momentum, device):
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    ours = [
        torch.randn(6).to(device, dtype),
        torch.rand(6).to(device, dtype),
        torch.tensor(4, device=device),
    ]
    theirs = nn.BatchNorm1d(6, momentum=momentum, dtype=torch.float64)
    for name, buffer in zip(
        ("running_mean", "running_var", "num_batches_tracked"), ours, strict=True
    ):
        getattr(theirs, name).copy_(buffer)
    x = torch.randn(5, 6, dtype=torch.float64)
    theirs(x)
    batch = [t.to(device, computed) for t in (x.mean(0), x.var(0, correction=0))]
    versions = [buffer._version for buffer in ours]
    update_running_statistics(*ours, *batch, momentum, 5)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14}.get(dtype, 8e-3)
    for updated, expected in zip(ours, theirs.buffers(), strict=True):
        torch.testing.assert_close(
            updated.double().cpu(), expected.double(), rtol=tolerance, atol=tolerance
        )
    assert all(buffer._version > before for buffer, before in zip(ours, versions, strict=True))


def test_running_statistics_without_a_count():
    running, batch = [torch.zeros(3), torch.ones(3)], [torch.ones(3), torch.full((3,), 3.0)]
    update_running_statistics(*running, None, *batch, None, 4)
    assert [t.tolist() for t in running] == [[0.0] * 3, [1.0] * 3]  # no average without a count
    update_running_statistics(*running, None, *batch, 0.5, 4)
    assert [t.tolist() for t in running] == [[0.5] * 3, [2.5] * 3]  # 3 is biased, 4 is not


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_in_inference_mode(momentum):
    with torch.inference_mode():
        running = [torch.zeros(3), torch.ones(3), torch.tensor(0)]
        update_running_statistics(*running, torch.ones(3), torch.ones(3), momentum, 4)
    assert running[2] == 1
    assert running[0].ne(0).all()
    with pytest.raises(RuntimeError, match="outside InferenceMode"):
        update_running_statistics(*running, torch.ones(3), torch.ones(3), momentum, 4)


def test_running_statistics_of_other_channels_are_refused():
    running, batch = (
        [torch.zeros(3), torch.ones(3), torch.tensor(0)],
        [torch.ones(1), torch.ones(1)],
    )
    with pytest.raises(
        RuntimeError, match=r"shapes \[3\] and \[3\], those of the batch \[1\] and \[1\]"
    ):
        update_running_statistics(*running, *batch, 0.1, 4)
    assert running[2] == 0


@pytest.mark.parametrize("momentum", [0.1, None])
def test_opcheck_of_running_statistics(momentum):
    tensors = torch.randn(4), torch.rand(4), torch.tensor(2), torch.randn(4), torch.rand(4)
    torch.library.opcheck(torch.ops.cnngraph.update_running_statistics, (*tensors, momentum, 8))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_gradcheck(name, arguments, training):
    x, _, weight, bias, mean, var = tensors((3, 2, 2, 3), torch.float64, seed=3)
    if training:
        mean = var = None
    x = keep_off_kinks(name, x, weight, bias, mean, var)
    torch.autograd.gradcheck(
        lambda x, w, b: batch_norm_act(x, w, b, mean, var, 1e-5, name, arguments)[0],
        tuple(t.requires_grad_() for t in (x, weight, bias)),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_gradgradcheck(name, arguments, training):
    if name == "hardsigmoid":
        pytest.skip("second derivatives are torch's, whose 1/6 is a float32")
    x, _, weight, bias, mean, var = tensors((3, 2, 2, 3), torch.float64, seed=3)
    if training:
        mean = var = None
    x = keep_off_kinks(name, x, weight, bias, mean, var)
    torch.autograd.gradgradcheck(
        lambda x, w, b: batch_norm_act(x, w, b, mean, var, 1e-5, name, arguments)[0],
        tuple(t.requires_grad_() for t in (x, weight, bias)),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("given", [(True, False), (False, True), (False, False)], ids=str)
def test_gradgradcheck_without_a_weight_or_a_bias(given, training):
    x, _, *parameters, mean, var = tensors((3, 2, 2, 3), torch.float64, seed=3)
    if training:
        mean = var = None

    def ours(x, *some):
        some = iter(some)
        weight, bias = (next(some) if there else None for there in given)
        return batch_norm_act(x, weight, bias, mean, var, 1e-5, "silu")[0]

    leaves = [x, *itertools.compress(parameters, given)]
    torch.autograd.gradgradcheck(ours, tuple(leaf.requires_grad_() for leaf in leaves))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradient_penalty_is_torchs(dtype, training):
    x, _, weight, bias, mean, var = tensors((4, 6, 5, 5), dtype, channels_last=True)
    if training:
        mean = var = None

    def penalty_gradients(function, *leaves):
        leaves = [t.detach().clone().requires_grad_() for t in leaves]
        hidden = leaves[0] * 1.5  # gradients must reach the operations before the operator too
        (first,) = torch.autograd.grad(
            function(hidden, *leaves[1:]).square().sum(), hidden, create_graph=True
        )
        return torch.autograd.grad(first.square().sum(), leaves)

    actual = penalty_gradients(
        lambda *leaves: batch_norm_act(*leaves, mean, var, 1e-5, "silu")[0], x, weight, bias
    )  # fmt: skip
    expected = penalty_gradients(
        eager("silu", (), double(mean), double(var)), x.double(), weight.double(), bias.double()
    )  # fmt: skip
    for ours, wanted in zip(actual, expected, strict=True):
        assert error_of(ours, wanted) < (5e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=3))[1:], ids=str)
@pytest.mark.parametrize(
    "given", [(True, True), (True, False), (False, True), (False, False)], ids=str
)
def test_each_requires_grad_is_honoured(given, wanted, training):
    x, grad, weight, bias, mean, var = tensors((4, 6, 5, 5))
    if training:
        mean = var = None
    leaves = [x, weight if given[0] else None, bias if given[1] else None]
    for leaf, want in zip(leaves, wanted, strict=True):
        if leaf is not None:
            leaf.requires_grad_(want)
    asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    if not asked:
        return
    actual = torch.autograd.grad(batch_norm_act(*leaves, mean, var, 1e-5, "silu")[0], asked, grad)
    exact = eager("silu", (), double(mean), double(var))(*map(double, leaves))
    expected = torch.autograd.grad(exact, asked, grad.double())
    for leaf, ours, wanted in zip(asked, actual, expected, strict=True):
        assert error_of(ours, wanted) < TOLERANCE[torch.float32]
        output = batch_norm_act(*leaves, mean, var, 1e-5, "silu")[0]
        alone = torch.autograd.grad(output, leaf, grad)[0]
        assert error_of(alone, wanted) < TOLERANCE[torch.float32]


def test_forward_mode_is_refused_by_the_operator():
    x, tangent, _, _, mean, var = tensors((2, 3, 4, 4))
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(
            lambda x: batch_norm_act(x, None, None, mean, var, 1e-5, "silu")[0], (x,), (tangent,)
        )


def test_statistics_are_handed_out_without_a_gradient():
    x, _, weight, bias, mean, var = tensors((4, 6, 5, 5))
    _, batch_mean, batch_var = batch_norm_act(
        x.requires_grad_(), weight, bias, None, None, 1e-5, "relu"
    )
    exact_var, exact_mean = torch.var_mean(x.detach().double(), dim=(0, 2, 3), correction=0)
    assert error_of(batch_mean, exact_mean) < 1e-6
    assert error_of(batch_var, exact_var) < 1e-6
    assert not batch_mean.requires_grad
    assert not batch_var.requires_grad
    _, no_mean, no_var = batch_norm_act(x, weight, bias, mean, var, 1e-5, "relu")
    assert no_mean.shape == no_var.shape == (0,)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_compiled_autograd(affine, training, backend):
    compiled_autograd = pytest.importorskip("torch._dynamo.compiled_autograd")
    x, grad, weight, bias, mean, var = tensors((4, 6, 5, 5), affine=affine)
    if training:
        mean = var = None

    def ours(x, w, b):
        return batch_norm_act(x, w, b, mean, var, 1e-5, "silu")[0]

    _, expected = grads_of(ours, x, weight, bias, grad)
    with compiled_autograd._enable(torch.compile(backend=backend, dynamic=False)):
        _, actual = grads_of(ours, x, weight, bias, grad)
    for compiled, plain in zip(actual, expected, strict=True):
        torch.testing.assert_close(compiled, plain)


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (0, 4), (3, 4, 0, 2)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_empty_input(shape, training, device):
    x, grad, weight, bias, mean, var = tensors(shape, device=device)
    if training:
        mean = var = None
    y, grads = grads_of(
        lambda x, w, b: batch_norm_act(x, w, b, mean, var, 1e-5, "relu")[0], x, weight, bias, grad
    )
    assert y.shape == shape
    assert grads[0].shape == shape
    assert torch.equal(grads[1].cpu(), torch.zeros(4))
    assert torch.equal(grads[2].cpu(), torch.zeros(4))


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1), (1, 4, 1, 1)], ids=str)
def test_one_value_per_channel_is_a_value_error_as_in_torch(shape):
    x = torch.randn(shape)
    with pytest.raises(ValueError):  # noqa: PT011 - the text is torch's
        F.batch_norm(x, None, None, training=True)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        batch_norm_act(x, None, None, None, None, 1e-5, "relu")
    fixed = batch_norm_act(x, None, None, torch.zeros(4), torch.ones(4), 0.0, "relu")[0]
    torch.testing.assert_close(fixed, x.relu())


def strided_inputs(device):
    base, _, *_ = tensors((6, 8, 10, 12), device=device)
    yield "every second sample", base[::2]
    yield "some channels", base[:, 2:7]
    yield "a channels_last slice of channels", base.to(memory_format=torch.channels_last)[:, 2:7]
    yield "every second pixel", base[..., ::2]
    yield "height and width swapped", base.transpose(2, 3)
    yield "expanded", base[:1].expand(4, -1, -1, -1)
    yield "a matrix transposed", base[0, 0].t()
    yield "lengths last", base[0].transpose(1, 2)


def test_other_strides(device):
    for what, x in strided_inputs(device):
        weight, bias = x.new_empty(2, x.shape[1]).uniform_(0.5, 1.5)
        grad = torch.randn_like(x).transpose(0, 1).contiguous().transpose(0, 1)
        y, grads = grads_of(
            lambda x, w, b: batch_norm_act(x, w, b, None, None, 1e-5, "silu")[0],
            x,
            weight,
            bias,
            grad,
        )
        y64, grads64 = grads_of(
            eager("silu", (), None, None), x.double(), weight.double(), bias.double(), grad
        )
        for actual, wanted in zip([y, *grads], [y64, *grads64], strict=True):
            assert error_of(actual, wanted) < 3e-6, what


@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("size", [(), (30, 31), (1, 1)], ids=str)
def test_slice_of_channels_is_read_in_place(size, channels_last, training, added):
    x, grad, weight, bias, mean, var = tensors((4, 16, *size), channels_last=channels_last)
    wide = torch.randn(4, 40, *size).movedim(1, -1) if channels_last else torch.randn(4, 40, *size)
    wide = wide.contiguous().movedim(-1, 1) if channels_last else wide
    statistics = (None, None) if training else (mean, var)
    leaves = [t.detach().requires_grad_() for t in (wide[:, 8:24], weight, bias, *[x][:added])]
    with torch.profiler.profile() as profile:
        y = batch_norm_act(*leaves[:3], *statistics, 1e-5, "silu", (), *leaves[3:])[0]
        found = [y, *torch.autograd.grad(y, leaves, grad)]
    assert {event.name for event in profile.events()}.isdisjoint(
        {"aten::copy_", "aten::clone", "aten::contiguous"}
    )
    assert [t.stride() for t in (y, found[1])] == [x.stride()] * 2
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    z = F.batch_norm(doubles[0], *map(double, statistics), *doubles[1:3], training, 0.1, 1e-5)
    expected = F.silu(sum(doubles[3:], start=z))
    for ours, wanted in zip(
        found, [expected, *torch.autograd.grad(expected, doubles, grad.double())], strict=True
    ):
        assert error_of(ours, wanted) < 3e-6


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(), (7,), (4, 6)], ids=str)
def test_opcheck_of_a_slice_of_channels(size, channels_last):
    wide = torch.randn(3, 11, *size)
    x = (wide.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else wide)[:, 2:7]
    weight, bias, mean, var = torch.rand(4, 5)
    torch.library.opcheck(
        torch.ops.cnngraph.batch_norm_act, (x, weight, bias, None, None, 1e-5, "silu", [])
    )
    torch.library.opcheck(
        torch.ops.cnngraph.batch_norm_act_backward,
        (
            torch.randn(x.shape),
            x,
            weight,
            bias,
            mean,
            var,
            True,
            1e-5,
            "silu",
            [],
            [True, True, True, False],
        ),
    )


def gradients_of_parts(shape):
    """A gradient that is a part of a larger tensor, and how."""
    batch, channels, height, width = shape
    wide = torch.randn(
        2 * batch, channels + 8, height + 1, width, generator=torch.Generator().manual_seed(2)
    )
    whole = wide[:batch, :, :height]
    yield "channels", whole.contiguous()[:, 4:-4]
    yield "channels, channels last", whole.to(memory_format=torch.channels_last)[:, 4:-4]
    yield "samples too", wide.contiguous()[::2, 4:-4, :height]
    yield "rows too", wide.to(memory_format=torch.channels_last)[:batch, 4:-4, 1:]
    yield "samples repeated", whole.contiguous()[:1, 4:-4].expand(shape)
    yield (
        "pixels repeated",
        whole.to(memory_format=torch.channels_last)[:, 4:-4, :1, :1].expand(shape),
    )


@pytest.mark.parametrize(
    "shape", [(4, 37, 5, 6), (3, 1, 5, 6), (1, 8, 5, 6), (6, 7, 1, 1), (2, 3, 1, 4)], ids=str
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
def test_gradient_that_is_a_slice(added, channels_last, shape):
    x, _, weight, bias, mean, var = tensors(shape, channels_last=channels_last)
    residual = x.flip(0) if added else None
    op = torch.ops.cnngraph.batch_norm_act_backward

    def run(grad):
        call = (x, weight, bias, mean, var, True, 1e-5, "silu", [], [True] * 3 + [added], residual)
        return op(grad, *call)

    for what, grad in gradients_of_parts(shape):
        dense = torch.empty_like(x).copy_(grad)
        for actual, wanted in zip(run(grad)[: 3 + added], run(dense), strict=False):
            assert error_of(actual, wanted.double()) < 3e-6, what


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9),
    channels=st.integers(1, 150),
    pixels=st.lists(st.integers(1, 9), max_size=2),
    channels_last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    name=st.sampled_from(["identity", "silu", "tanh"]),
)
def test_any_shape(batch, channels, pixels, channels_last, dtype, name, device):
    shape = (batch, channels, *pixels)
    if torch.Size(shape).numel() == channels:
        return
    x, grad, weight, bias, *_ = tensors(shape, dtype, channels_last, device=device)
    y, grads = grads_of(
        lambda x, w, b: batch_norm_act(x, w, b, None, None, 1e-2, name)[0], x, weight, bias, grad
    )
    y64, grads64 = grads_of(
        eager(name, (), None, None, 1e-2), x.double(), weight.double(), bias.double(), grad
    )
    for actual, wanted in zip([y, *grads], [y64, *grads64], strict=True):
        scale = max(wanted.abs().max().item(), 1.0)
        bound = 2 * TOLERANCE[dtype] * scale
        assert (actual.double() - wanted).abs().max().item() < bound


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(dtype, affine, training, channels_last):
    x, grad, weight, bias, mean, var = tensors((3, 5, 4, 6), dtype, channels_last, affine)
    statistics = (None, None) if training else (mean, var)
    leaves = [t if t is None else t.clone().requires_grad_() for t in (x, weight, bias)]
    torch.library.opcheck(
        torch.ops.cnngraph.batch_norm_act, (*leaves, *statistics, 1e-5, "silu", [])
    )
    torch.library.opcheck(
        torch.ops.cnngraph.batch_norm_act_backward,
        (grad, x, weight, bias, mean, var, training, 1e-5, "leaky_relu", [0.1],
         [True, affine, False, False]),
    )  # fmt: skip


def test_wrong_arguments_are_named():
    x, _, weight, bias, *_ = tensors((2, 3, 4, 4))
    op = torch.ops.cnngraph.batch_norm_act
    with pytest.raises(ValueError, match="unknown activation 'swish'"):
        op(x, weight, bias, None, None, 1e-5, "swish", [])
    with pytest.raises(ValueError, match="'leaky_relu' takes 1 arguments, got 0"):
        op(x, weight, bias, None, None, 1e-5, "leaky_relu", [])
    with pytest.raises(RuntimeError, match="weight should hold 3 elements"):
        op(x, weight[:2], bias, None, None, 1e-5, "relu", [])
    with pytest.raises(RuntimeError, match="expected weight of type"):
        op(x, weight.double(), bias, None, None, 1e-5, "relu", [])
    with pytest.raises(RuntimeError, match="both mean and var"):
        op(x, weight, bias, weight, None, 1e-5, "relu", [])
    for residual in (x[:1], x[..., :1], x[0], x.double()):
        with pytest.raises(RuntimeError, match="expected a residual of (shape|type)"):
            op(x, weight, bias, None, None, 1e-5, "relu", [], residual)


# --- a residual: activation(batch_norm(x) + residual) -------------------------------------------


def with_residual(name, arguments, mean, var, eps=1e-5):
    """The operator as a function of all that may have a gradient, and torch's own in float64."""

    def ours(x, weight, bias, residual):
        return batch_norm_act(x, weight, bias, mean, var, eps, name, arguments, residual)[0]

    def torchs(x, weight, bias, residual):
        z = F.batch_norm(x, double(mean), double(var), weight, bias, mean is None, 0.1, eps)
        return ACTIVATIONS[name](z + residual, *arguments)

    return ours, torchs


def residual_of(name, x, weight, bias, mean, var, seed=1):
    """Values in the memory format of x; no sum with x is within rounding of a kink."""
    generator = torch.Generator().manual_seed(seed)
    residual = (torch.randn(x.shape, generator=generator, dtype=torch.float64) * 2).to(x)
    z = F.batch_norm(
        x.double(), double(mean), double(var), double(weight), double(bias), mean is None
    )
    for kink in KINKS.get(name, ()):
        residual = torch.where(
            (z + residual - kink).abs() < 1e-3, residual + residual.abs() * 0.02 + 0.02, residual
        )
    return torch.empty_like(x).copy_(residual)


def steps_of(function, tensors, grad):
    leaves = [t if t is None else t.detach().clone().requires_grad_() for t in tensors]
    y = function(*leaves)
    wanted = [leaf for leaf in leaves if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, wanted, grad.to(y.dtype))]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@on_every_device(*DTYPES)
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[name for name, _ in CASES])
def test_a_residual_is_added_as_torch_adds_it(
    name, arguments, device, dtype, channels_last, training
):
    for index, shape in enumerate(SHAPES):
        for affine in (True, False) if index < 2 else (True,):
            x, grad, weight, bias, mean, var = tensors(
                shape, dtype, channels_last, affine, device=device
            )
            if training:
                mean = var = None
            given = (x, weight, bias, residual_of(name, x, weight, bias, mean, var))
            ours, torchs = with_residual(name, arguments, mean, var)
            actual, expected = (
                steps_of(ours, given, grad),
                steps_of(torchs, map(double, given), grad),
            )
            assert [actual[0].dtype, actual[0].stride()] == [dtype, x.stride()]
            assert [actual[-1].dtype, actual[-1].stride()] == [dtype, x.stride()]
            for one, wanted in zip(actual, expected, strict=True):
                assert error_of(one, wanted) < TOLERANCE[dtype]


@pytest.mark.parametrize("x_last", [False, True])
@pytest.mark.parametrize("how", ["other layout", "transposed", "expanded", "slice"])
def test_residual_may_have_another_layout(how, x_last):
    x, grad, weight, bias, *_ = tensors((6, 8, 9, 9), channels_last=x_last)
    wide = torch.randn(12, 8, 9, 9)
    residual = {
        "other layout": wide[:6].contiguous(
            memory_format=torch.contiguous_format if x_last else torch.channels_last
        ),
        "transposed": wide[:6].transpose(2, 3),
        "expanded": wide[:1].expand(6, -1, -1, -1),
        "slice": wide[::2],
    }[how]
    ours, torchs = with_residual("silu", (), None, None)
    given = (x, weight, bias, residual)
    for actual, wanted in zip(
        steps_of(ours, given, grad), steps_of(torchs, map(double, given), grad), strict=True
    ):
        assert error_of(actual, wanted) < 3e-6


def test_a_map_of_one_pixel_has_one_layout():
    x, grad, weight, bias, *_ = tensors((16, 5, 1, 1))
    residual = torch.randn(16, 5, 1, 1).to(memory_format=torch.channels_last)
    ours, torchs = with_residual("silu", (), None, None)
    given = (x, weight, bias, residual)
    for actual, wanted in zip(
        steps_of(ours, given, grad), steps_of(torchs, map(double, given), grad), strict=True
    ):
        assert error_of(actual, wanted) < 3e-6


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
@pytest.mark.parametrize("name", ["identity", "relu", "hardswish", "silu"])
def test_gradcheck_with_a_residual(name, check, training):
    x, _, weight, bias, mean, var = tensors((3, 2, 2, 3), torch.float64, seed=3)
    if training:
        mean = var = None
    given = (x, weight, bias, residual_of(name, x, weight, bias, mean, var))
    ours, _ = with_residual(name, (), mean, var)
    assert check(ours, tuple(t.requires_grad_() for t in given))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_of_a_relu_of_a_sum_at_zero_infinity_and_nan(dtype, training):
    z = torch.tensor([0.0, -0.0, 1.0, -1.0, float("inf"), float("-inf"), float("nan")], dtype=dtype)
    x, grad = torch.randn(2, 2, 2, 3, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    weight, bias = torch.zeros(
        2, 2, dtype=torch.float64 if dtype == torch.float64 else torch.float32
    )
    mean, var = (None, None) if training else (bias, bias + 1)
    ours, torchs = with_residual("relu", (), mean, var)
    given = (x, weight, bias, z.expand(2, 2, 3, 7))
    y, *grads = steps_of(ours, given, grad)
    y64, *grads64 = steps_of(torchs, map(double, given), grad)
    torch.testing.assert_close(y.double(), y64, equal_nan=True)
    for actual, wanted in zip(grads, grads64, strict=True):
        torch.testing.assert_close(
            actual.double(), wanted, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5
        )


@pytest.mark.parametrize("channels_last", [False, True])
def test_sums_are_rounded_to_bfloat16_as_torch_rounds_them(channels_last):
    x, *_ = tensors((4, 37, 9, 11), torch.bfloat16, channels_last)
    half_a_unit = torch.exp2(torch.frexp(x.float()).exponent - 9.0)
    residual = half_a_unit * torch.tensor([1.0, 1.0, 0.5, 1.5]).reshape(4, 1, 1, 1)
    residual = torch.empty_like(x).copy_(residual)
    special = torch.tensor([float("nan"), float("inf"), float("-inf"), 3.3e38, -3.3e38, 1e-40, 0.0])
    x[0, :7, 0, 0] = special.to(x)
    zero, one = torch.zeros(37), torch.ones(37)
    y, _, _ = batch_norm_act(x, None, None, zero, one, 0.0, "identity", (), residual)
    torch.testing.assert_close(
        y, (x.float() + residual.float()).bfloat16(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize(
    ("name", "kept"), [("relu", "output"), ("identity", None), ("silu", "residual")]
)
def test_what_is_kept_of_a_sum(name, kept):
    x, _, weight, bias, *_ = (t.requires_grad_() for t in tensors((4, 6, 5, 5)))
    residual = torch.randn(4, 6, 5, 5, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.data_ptr()), lambda _: None
    ):
        output = batch_norm_act(x, weight, bias, None, None, 1e-5, name, (), residual)[0]
    assert [(tensor.data_ptr() in saved) for tensor in (x, residual, output)] == [
        True,
        kept == "residual",
        kept == "output",
    ]


def test_backward_accepts_an_output_only_for_relu():
    x, grad, weight, bias, mean, var = tensors((2, 3, 4, 4))
    op = torch.ops.cnngraph.batch_norm_act_backward
    for name, residual in (("silu", None), ("relu", x)):
        with pytest.raises(
            RuntimeError, match="the output replaces the residual, and only for a relu"
        ):
            op(grad, x, weight, bias, mean, var, True, 1e-5, name, [], [True] * 4, residual, x)
    with pytest.raises(RuntimeError, match="expected an output of shape"):
        op(grad, x, weight, bias, mean, var, True, 1e-5, "relu", [], [True] * 4, None, x[:1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wanted", list(itertools.product((False, True), repeat=4))[1:], ids=str)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", ["identity", "relu", "silu"])
def test_each_requires_grad_is_honoured_with_a_residual(name, affine, wanted, training):
    x, grad, weight, bias, mean, var = tensors((4, 6, 5, 5), torch.float64, affine=affine)
    if training:
        mean = var = None
    leaves = [x, weight, bias, torch.randn_like(x)]
    for leaf, want in zip(leaves, wanted, strict=True):
        if leaf is not None:
            leaf.requires_grad_(want)
    asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    if not asked:
        return
    ours, torchs = with_residual(name, (), mean, var)
    expected = torch.autograd.grad(torchs(*leaves), asked, grad)
    torch.testing.assert_close(torch.autograd.grad(ours(*leaves), asked, grad), expected)
    for leaf, theirs in zip(asked, expected, strict=True):  # one gradient alone
        torch.testing.assert_close(torch.autograd.grad(ours(*leaves), leaf, grad)[0], theirs)


@pytest.mark.parametrize("training", [True, False])
def test_empty_input_with_a_residual(training):
    x, grad, weight, bias, mean, var = tensors((0, 4, 5, 5))
    if training:
        mean = var = None
    ours, _ = with_residual("relu", (), mean, var)
    assert [t.shape for t in steps_of(ours, (x, weight, bias, x), grad)] == [
        x.shape,
        x.shape,
        (4,),
        (4,),
        x.shape,
    ]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["relu", "silu"])
def test_same_bits_for_any_number_of_threads_with_a_residual(name, channels_last):
    x, grad, weight, bias, *_ = tensors((8, 24, 30, 30), channels_last=channels_last)
    ours, _ = with_residual(name, (), None, None)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(steps_of(ours, (x, weight, bias, grad), grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["identity", "relu", "silu"])
def test_opcheck_with_a_residual(name, dtype, training, channels_last):
    x, grad, weight, bias, mean, var = tensors((3, 5, 4, 6), dtype, channels_last)
    statistics = (None, None) if training else (mean, var)
    residual = torch.randn(x.shape).to(dtype)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    op = torch.ops.cnngraph.batch_norm_act
    torch.library.opcheck(
        op, (*leaves, *statistics, 1e-5, name, [], residual.clone().requires_grad_())
    )
    for wanted in (True, False):
        torch.library.opcheck(
            torch.ops.cnngraph.batch_norm_act_backward,
            (grad, x, weight, bias, mean, var, training, 1e-5, name, [], [True, True, False, wanted],
             *([None, residual] if name == "relu" else [residual])),
        )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["identity", "relu", "silu"])
def test_compiled_with_a_residual(name, training):
    compiled_autograd = pytest.importorskip("torch._dynamo.compiled_autograd")
    x, grad, weight, bias, mean, var = tensors((4, 6, 5, 5), channels_last=True)
    if training:
        mean = var = None
    ours, _ = with_residual(name, (), mean, var)
    given = (x, weight, bias, torch.randn(4, 6, 5, 5))
    expected = steps_of(ours, given, grad)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(steps_of(compiled, given, grad), expected)
    leaves = [t.clone().requires_grad_() for t in given]
    with compiled_autograd._enable(torch.compile(backend="aot_eager", dynamic=False)):
        ours(*leaves).backward(grad)
    torch.testing.assert_close([leaf.grad for leaf in leaves], expected[1:])


@pytest.mark.parametrize("training", [True, False])
def test_compiled(training):
    x, grad, weight, bias, mean, var = tensors((4, 6, 5, 5), channels_last=True)
    if training:
        mean = var = None

    def ours(x, w, b):
        return batch_norm_act(x, w, b, mean, var, 1e-5, "silu")[0] * 2

    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    y, grads = grads_of(ours, x, weight, bias, grad)
    y2, grads2 = grads_of(compiled, x, weight, bias, grad)
    for plain, other in zip([y, *grads], [y2, *grads2], strict=True):
        torch.testing.assert_close(other, plain)


CAPABILITY_CODE = """
    import json, torch
    import torch.nn.functional as F
    from cnngraph import kernels
    from cnngraph.kernels.batch_norm_act import batch_norm_act
    from test_batch_norm_act_op import ACTIVATIONS
    worst = 0.0
    capability = kernels.build_info()["cpu_capability"]
    for name in ACTIVATIONS if capability == WANTED else ():
        args = {"leaky_relu": (0.1,), "elu": (1.3,), "hardtanh": (-0.5, 0.7)}.get(name, ())
        for shape in ((5, 37, 6, 7), (50, 19)):
            for dtype in (torch.float32, torch.bfloat16):
                torch.manual_seed(0)
                x = torch.randn(shape).to(dtype)
                for x in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
                    for r in (None, x.flip(0)):
                        x, r = x.detach().requires_grad_(), None if r is None else r.detach().requires_grad_()
                        y = batch_norm_act(x, None, None, None, None, 1e-5, name, args, r)[0]
                        y.backward(torch.ones_like(y))
                        x64 = x.detach().double().requires_grad_()
                        r64 = torch.zeros(()) if r is None else r.detach().double().requires_grad_()
                        y64 = ACTIVATIONS[name](F.batch_norm(x64, None, None, training=True) + r64, *args)
                        y64.backward(torch.ones_like(y64))
                        scale = 1 if dtype == torch.float32 else 2000
                        for a, b in ((y, y64), (x.grad, x64.grad), *([] if r is None else [(r.grad, r64.grad)])):
                            error = (a.double() - b).abs().max() / (1 + b.abs().max())
                            worst = max(worst, error.item() / scale)
    print(json.dumps({"capability": capability, "worst": worst}))
"""


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_every_capability_of_this_processor(capability):
    result, stderr = in_subprocess(
        CAPABILITY_CODE.replace("WANTED", repr(capability)), CNNGRAPH_CPU_CAPABILITY=capability
    )
    if result["capability"] != capability:
        assert "more than this processor has" in stderr
        pytest.skip(f"no {capability} here: ran {result['capability']}")
    assert result["worst"] < 4e-6


def test_memory_for_many_channels_of_an_odd_number():
    code = """
        import json, resource, torch
        from cnngraph.kernels.batch_norm_act import batch_norm_act
        torch.set_num_threads(1)
        x = torch.empty(256, 100_001).normal_()
        batch_norm_act(x[:2, :3], None, None, None, None, 1e-5, "relu")
        torch.empty_like(x).fill_(0.0)  # as much as the output takes
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        batch_norm_act(x, None, None, None, None, 1e-5, "relu")
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps(used * 1024))
    """
    used, _ = in_subprocess(code)
    assert used < 10e6


def test_unknown_capability_is_reported():
    code = """
        import json
        from cnngraph import kernels
        print(json.dumps(kernels.build_info()["cpu_capability"]))
    """
    _, stderr = in_subprocess(code, CNNGRAPH_CPU_CAPABILITY="sse9")
    assert "is none of default, avx2, avx512" in stderr
