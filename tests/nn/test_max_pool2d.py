"""The function over the ordinary modules: it must mean pool(activation(input)) always."""

import pytest
import torch
from conftest import operators_of
from test_batch_norm_act import TRANSFORMS
from torch import nn

from cnngraph import kernels
from cnngraph.nn import max_pool2d

needs_extension = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)


def fused_calls(function):
    """How many max_pool2d operators a call runs."""
    return [str(operator) for operator in operators_of(function)].count(
        "cnngraph.max_pool2d.default"
    )


def steps(activation, pool, x):
    results = []
    for run in (
        lambda x: max_pool2d(activation, pool, x),
        lambda x: pool(activation(x) if activation else x),
    ):
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        y = run(leaf)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape))
        results.append((y.detach(), leaf.grad))
    return results


POOLS = [
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2),
    nn.MaxPool2d((3, 2), (2, 1), (1, 0), (2, 1), ceil_mode=True),
]
ACTIVATIONS = [None, nn.ReLU(), nn.SiLU()]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_modules(dtype, pool, activation):
    map = torch.randn(2, 5, 11, 9).to(dtype)
    for x in (map, map.contiguous(memory_format=torch.channels_last), map[0], map[:, :, ::2]):
        ours, theirs = steps(activation, pool, x)
        assert ours[0].dtype == theirs[0].dtype
        low = dtype in (torch.bfloat16, torch.float16)
        torch.testing.assert_close(ours, theirs, **({"rtol": 2e-2, "atol": 2e-2} if low else {}))


def test_the_input_is_left_alone():
    x = torch.randn(2, 3, 8, 8)
    before = x.clone()
    max_pool2d(nn.ReLU(inplace=True), nn.MaxPool2d(2), x)
    assert torch.equal(x, before)


@needs_extension
def test_operator_runs_only_if_it_is_exact():
    x = torch.randn(2, 6, 8, 8)

    class MyPool(nn.MaxPool2d):
        pass

    class MyReLU(nn.ReLU):
        def forward(self, x):
            return super().forward(x) + 1

    def calls(activation, pool, x=x):
        return fused_calls(lambda: max_pool2d(activation, pool, x))

    assert calls(None, nn.MaxPool2d(2)) == calls(nn.ReLU(), nn.MaxPool2d(2)) == 1
    assert (
        calls(None, MyPool(2))
        == calls(MyReLU(), nn.MaxPool2d(2))
        == calls(nn.Tanh(), nn.MaxPool2d(2))
        == 0
    )
    assert calls(None, nn.AvgPool2d(2)) == calls(None, nn.MaxPool2d(2, return_indices=True)) == 0
    assert calls(None, nn.MaxPool2d(16, 1, 8), torch.randn(1, 1, 16, 16)) == 0
    assert calls(None, nn.MaxPool2d(2), x[0]) == calls(None, nn.MaxPool2d(2), x[:0]) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert max_pool2d(None, nn.MaxPool2d(2), x).dtype == nn.MaxPool2d(2)(x).dtype


class Net(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2, 1, 1)
        self.fused = fused

    def forward(self, x):
        x = x * x - 0.5
        return (
            max_pool2d(self.relu, self.pool, x) if self.fused else self.pool(self.relu(x))
        ).square()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("transform", list(TRANSFORMS))
def test_transforms_of_functions(transform):
    torch.manual_seed(0)
    x, tangent = torch.randn(2, 2, 4, 3, 3).double()
    expected = TRANSFORMS[transform](Net(fused=False), x, tangent)
    assert expected.abs().max() > 0
    torch.testing.assert_close(TRANSFORMS[transform](Net(fused=True), x, tangent), expected)


@pytest.mark.parametrize("where", ["activation", "pool"])
def test_hooks_fire(where):
    modules = {"activation": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    modules[where].register_forward_hook(lambda m, args, result: result + 1)
    x = torch.randn(2, 3, 8, 8)
    expected = modules["pool"](modules["activation"](x))
    assert torch.equal(max_pool2d(modules["activation"], modules["pool"], x), expected)


def test_errors_equal_torch():
    x = torch.randn(2, 3, 4, 4)
    for pool in (nn.MaxPool2d(2, padding=2), nn.MaxPool2d(9)):
        with pytest.raises(RuntimeError) as theirs:
            pool(x)
        with pytest.raises(RuntimeError) as ours:
            max_pool2d(None, pool, x)
        assert str(ours.value).splitlines()[0] == str(theirs.value).splitlines()[0]


@needs_extension
def test_torch_compile_and_export():
    network, x = Net(fused=True), torch.randn(2, 4, 9, 9)
    expected = steps(None, network, x)[1]
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(steps(None, compiled, x)[1], expected)
    for size in (10, 12):
        x = torch.randn(3, 4, size, size)
        torch.testing.assert_close(steps(None, compiled, x)[1], steps(None, network, x)[1])
    program = torch.export.export(
        network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},)
    )
    assert "cnngraph" not in str(program.graph)
    x = torch.randn(5, 4, 12, 12)
    torch.testing.assert_close(program.module()(x), network(x))
