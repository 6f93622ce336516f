"""The function over two ordinary modules: it must mean activation(batch_norm(input) + residual)
always."""

import copy
import json
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import operators_of
from torch import nn
from torch.autograd import forward_ad
from torch.utils import checkpoint

from cnngraph import kernels
from cnngraph.nn.batch_norm_act import batch_norm_act
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM, GELU
from cnngraph.shape import TensorShape

needs_extension = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

ACTIVATIONS = [
    nn.Identity(), nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.7),
    nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(),
    nn.Hardsigmoid(), nn.Hardtanh(-0.3, 0.4), nn.Mish(), nn.Softplus(), None,
]  # fmt: skip


def randomised(batch_norm, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in batch_norm.parameters():
            parameter.uniform_(0.5, 1.5)
        if batch_norm.running_mean is not None:
            batch_norm.running_mean.normal_()
            batch_norm.running_var.uniform_(0.5, 1.5)
    return batch_norm


def fused_calls(function):
    """How many batch_norm_act operators a call runs."""
    return operators_of(function).count(torch.ops.cnngraph.batch_norm_act.default)


def assert_same_step(batch_norm, activation, x, residual=None, rtol=1e-4, atol=1e-5):
    """Output, gradients and buffers of one call against the modules in float64."""
    plain, fused = copy.deepcopy(batch_norm).double(), copy.deepcopy(batch_norm)
    applied = activation or nn.Identity()
    given = [value for value in (x, residual) if value is not None]
    own = [value.detach().clone().requires_grad_() for value in given]
    wide = [value.detach().double().requires_grad_() for value in given]
    with torch.autocast(x.device.type, enabled=False):
        expected = applied(sum(wide[1:], start=plain(wide[0])))
    actual = batch_norm_act(fused, activation, *own)
    normalised = copy.deepcopy(batch_norm)(x.detach())
    assert actual.dtype == applied(sum(own[1:], start=normalised)).dtype

    def check(ours, exact, rtol, atol):
        torch.testing.assert_close(ours.double(), exact.double(), rtol=rtol, atol=atol)

    check(actual, expected, rtol, atol)
    grad = torch.randn_like(actual)
    expected.backward(grad.double())
    actual.backward(grad)
    for ours, exact in zip(own, wide, strict=True):
        check(ours.grad, exact.grad, rtol, 10 * atol)
    for ours, exact in zip(fused.parameters(), plain.parameters(), strict=True):
        check(ours.grad, exact.grad, 10 * rtol, 100 * atol)
    for ours, exact in zip(fused.buffers(), plain.buffers(), strict=True):
        one_rounding = 1e-2 if ours.dtype == torch.bfloat16 else 1e-5
        check(ours, exact, one_rounding, one_rounding)


@pytest.mark.parametrize("added", [False, True], ids=["", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_activations(activation, training, added, device):
    batch_norm = randomised(nn.BatchNorm2d(6)).train(training).to(device)
    x, residual = torch.randn(2, 4, 6, 5, 7, device=device)
    assert_same_step(batch_norm, activation, x * 2, residual if added else None)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_unsupported_residual_is_added_by_torch(training):
    batch_norm = randomised(nn.BatchNorm2d(6)).train(training)
    x = torch.randn(4, 6, 5, 7)
    for residual in (
        x[:1],
        torch.randn(6, 1, 1),
        torch.randn(()),
        torch.randn(2, 4, 6, 5, 7),
        torch.randn(4, 6, 5, 7).double(),
    ):
        assert_same_step(batch_norm, nn.SiLU(), x, residual)
        if kernels.available():
            assert fused_calls(lambda r=residual: batch_norm_act(batch_norm, nn.SiLU(), x, r)) == 0
    for residual in (torch.randn(5, 6, 5, 7), torch.randn(4, 6, 5)):
        with pytest.raises(RuntimeError, match="must match the size"):
            batch_norm_act(batch_norm, nn.SiLU(), x, residual)


def test_a_residual_of_another_type_under_autocast():
    batch_norm = randomised(nn.BatchNorm2d(6))
    x, residual = torch.randn(2, 4, 6, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in (
            (x.bfloat16(), residual.bfloat16()),
            (x.bfloat16(), residual),
            (x, residual.bfloat16()),
        ):
            assert_same_step(batch_norm, nn.SiLU(), one, other, rtol=2e-2, atol=2e-2)


def test_the_residual_itself_is_left_alone():
    x, residual = torch.randn(2, 4, 6, 5, 7)
    before = residual.clone()
    batch_norm_act(nn.BatchNorm2d(6), nn.ReLU(inplace=True), x, residual)
    assert torch.equal(residual, before)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("track", [True, False], ids=["track", "forget"])
@pytest.mark.parametrize("momentum", [0.1, None, 0.0, 1.0], ids=str)
def test_settings(momentum, track, affine, training, device):
    batch_norm = nn.BatchNorm2d(6, momentum=momentum, affine=affine, track_running_stats=track)
    x = torch.randn(4, 6, 5, 7, device=device).to(memory_format=torch.channels_last)
    assert_same_step(randomised(batch_norm).train(training).to(device), nn.SiLU(), x)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.BatchNorm1d, (8, 5)),
        (nn.BatchNorm1d, (8, 5, 9)),
        (nn.BatchNorm2d, (8, 5, 3, 4)),
        (nn.BatchNorm3d, (4, 5, 3, 4, 2)),
    ],
)
def test_ranks(module, shape):
    assert_same_step(randomised(module(5)), nn.ReLU(), torch.randn(shape))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_over_steps(momentum):
    fused = nn.BatchNorm2d(4, momentum=momentum)
    plain = copy.deepcopy(fused).double()
    torch.manual_seed(0)
    for step in range(5):
        x = torch.randn(3, 4, 6, 5) * (step + 1) + step
        plain(x.double())
        batch_norm_act(fused, nn.ReLU(), x)
    assert fused.num_batches_tracked.item() == 5
    for ours, exact in zip(fused.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours.double(), exact.double(), rtol=1e-6, atol=1e-6)


def test_running_statistics_kept_when_not_tracked_any_more():
    batch_norm = randomised(nn.BatchNorm2d(4))
    batch_norm.track_running_stats = False
    before = copy.deepcopy(batch_norm.state_dict())
    batch_norm_act(batch_norm, nn.ReLU(), torch.randn(3, 4, 6, 5))
    for name, value in batch_norm.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("dtypes", ["bfloat16 input", "all bfloat16", "float64", "float16"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_types(dtypes, training, device):
    batch_norm = randomised(nn.BatchNorm2d(6)).train(training).to(device)
    x = torch.randn(4, 6, 5, 7, device=device)
    if dtypes == "float64":
        assert_same_step(batch_norm.double(), nn.ReLU(), x.double())
        return
    x = x.half() if dtypes == "float16" else x.bfloat16()
    if dtypes == "all bfloat16":
        batch_norm = batch_norm.bfloat16()
    assert_same_step(batch_norm, nn.SiLU(), x, rtol=2e-2, atol=2e-2)


def test_autocast_leaves_batch_norm_alone():
    batch_norm = randomised(nn.BatchNorm2d(6))
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_step(batch_norm, nn.ReLU(), torch.randn(4, 6, 5, 7))
        bfloat16 = torch.randn(4, 6, 5, 7).bfloat16()
        assert_same_step(batch_norm, nn.ReLU(), bfloat16, rtol=2e-2, atol=2e-2)
        assert batch_norm_act(batch_norm, nn.ReLU(), bfloat16).dtype == torch.bfloat16
    assert batch_norm.running_mean.dtype == torch.float32


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_autocast_gives_the_types_of_the_modules(activation):
    batch_norm = randomised(nn.BatchNorm2d(6))
    with torch.autocast("cpu", torch.bfloat16):
        for x in (torch.randn(4, 6, 5, 7), torch.randn(4, 6, 5, 7).bfloat16()):
            expected = (activation or nn.Identity())(batch_norm(x))
            assert batch_norm_act(batch_norm, activation, x).dtype == expected.dtype


def test_wrong_rank_and_single_values_raise_torchs_errors():
    x = torch.randn(4, 6, 5)
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        batch_norm_act(nn.BatchNorm2d(6), nn.ReLU(), x)
    with pytest.raises(ValueError, match=r"Expected more than 1 value per channel"):
        batch_norm_act(nn.BatchNorm2d(6), nn.ReLU(), torch.randn(1, 6, 1, 1))


def test_empty_batch_as_torch():
    plain, fused = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
    x = torch.randn(0, 6, 5, 5)
    torch.testing.assert_close(batch_norm_act(fused, nn.ReLU(), x), nn.ReLU()(plain(x)))
    for name, value in fused.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name])


@needs_extension
def test_operator_runs_only_if_it_is_exact():
    x = torch.randn(2, 6, 4, 4)

    class MyBatchNorm(nn.BatchNorm2d):
        pass

    class MyReLU(nn.ReLU):
        def forward(self, x):
            return super().forward(x) + 1

    def calls(batch_norm, activation):
        return fused_calls(lambda: batch_norm_act(batch_norm, activation, x))

    assert calls(nn.BatchNorm2d(6), nn.ReLU()) == 1
    assert fused_calls(lambda: batch_norm_act(nn.BatchNorm2d(6), nn.ReLU(), x, x)) == 1
    assert calls(MyBatchNorm(6), nn.ReLU()) == 0
    assert calls(nn.InstanceNorm2d(6), nn.ReLU()) == 0
    assert calls(nn.BatchNorm2d(6), MyReLU()) == 0
    assert calls(nn.BatchNorm2d(6), nn.Softplus()) == 0
    batch_norm = nn.BatchNorm2d(6)
    batch_norm.forward = lambda x: x * 0
    assert batch_norm_act(batch_norm, nn.ReLU(), x).abs().max() == 0


@needs_extension
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "op", [*(op() for op in FUSED_WITH_BATCH_NORM), GELU(approximate="tanh")], ids=str
)
def test_every_op_the_compiler_fuses_runs_as_the_operator(op, training):
    shape = TensorShape((6, 4, 4))
    batch_norm = nn.BatchNorm2d(6).train(training)
    x = torch.randn(2, *shape)
    assert fused_calls(lambda: batch_norm_act(batch_norm, op.module(shape), x)) == 1


class Net(nn.Module):
    """Three batch norms and activations, the last after an addition, as the operator or as the
    modules."""

    def __init__(self, fused=True):
        super().__init__()
        self.fused = fused
        self.norms = nn.ModuleList(randomised(nn.BatchNorm2d(4), seed) for seed in (1, 2, 3))
        self.act = nn.SiLU()

    def forward(self, x):
        first, *norms, last = self.norms
        kept = x = batch_norm_act(first, self.act, x) if self.fused else self.act(first(x))
        for norm in norms:
            x = batch_norm_act(norm, self.act, x) if self.fused else self.act(norm(x))
        return batch_norm_act(last, self.act, x, kept) if self.fused else self.act(last(x) + kept)


def sum_of_squares(network):
    return lambda x: network(x).square().sum()


def dual(network, x, tangent):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(network(forward_ad.make_dual(x, tangent))).tangent


def vmap_of_grad(network, x, tangent):
    return torch.vmap(torch.func.grad(lambda one: network(one[None]).square().sum()))(x)


def double_backward(network, x, tangent):
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(sum_of_squares(network)(x), x, create_graph=True)
    return torch.autograd.grad(first, x, tangent)[0]


TRANSFORMS = {
    "jvp": lambda network, x, tangent: torch.func.jvp(network, (x,), (tangent,))[1],
    "grad": lambda network, x, tangent: torch.func.grad(sum_of_squares(network))(x),
    "jacrev": lambda network, x, tangent: torch.func.jacrev(network)(x),
    "vmap": lambda network, x, tangent: torch.vmap(network)(torch.stack((x, tangent))),
    "vmap of grad": vmap_of_grad,
    "hessian": lambda network, x, tangent: torch.func.hessian(sum_of_squares(network))(
        x[:1, :, :1]
    ),
    "dual numbers": dual,
    "functional.jvp": lambda network, x, tangent: torch.autograd.functional.jvp(
        network, x, tangent
    )[1],
    "double backward": double_backward,
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("transform", list(TRANSFORMS))
def test_transforms_of_functions(transform):
    torch.manual_seed(0)
    x, tangent = torch.randn(2, 4, 3, 3).double(), torch.randn(2, 4, 3, 3).double()
    expected = TRANSFORMS[transform](Net(fused=False).double().eval(), x, tangent)
    actual = TRANSFORMS[transform](Net().double().eval(), x, tangent)
    assert expected.abs().max() > 0
    torch.testing.assert_close(actual, expected)


@needs_extension
def test_transforms_of_functions_compiled():
    network, plain = Net().eval(), Net(fused=False).eval()
    x = torch.randn(2, 4, 3, 3)
    compiled = torch.compile(
        torch.func.grad(sum_of_squares(network)), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x), torch.func.grad(sum_of_squares(plain))(x))


@pytest.mark.parametrize("where", ["batch_norm", "activation", "global"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_fire(kind, where):
    fired = []
    batch_norm, activation = nn.BatchNorm2d(6), nn.ReLU()
    hook = lambda *arguments: fired.append(kind)  # noqa: E731
    if where == "global":
        register = getattr(torch.nn.modules.module, f"register_module_{kind}_hook")
    else:
        module = {"batch_norm": batch_norm, "activation": activation}[where]
        register = getattr(module, f"register_{kind}_hook")
    handle = register(hook)
    try:
        x = torch.randn(2, 6, 4, 4, requires_grad=True)
        batch_norm_act(batch_norm, activation, x).sum().backward()
        once = len(fired)
        batch_norm_act(batch_norm, activation, x, x).sum().backward()
    finally:
        handle.remove()
    assert 0 < once < len(fired)


class Block(nn.Module):
    def __init__(self, residual=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.residual = residual

    def forward(self, x):
        x = self.conv(x)
        return batch_norm_act(self.bn, self.relu, x, x.tanh() if self.residual else None)


with_or_without_residual = pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])


@with_or_without_residual
def test_sync_batch_norm_conversion_keeps_results(residual):
    # In training SyncBatchNorm exists for accelerators only, so evaluation is what shows it here.
    block = Block(residual).eval()
    randomised(block.bn)
    x = torch.randn(2, 3, 8, 8)
    before = block(x)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(block)
    assert type(converted.bn) is nn.SyncBatchNorm
    assert list(converted.state_dict()) == list(Block().state_dict())
    torch.testing.assert_close(converted(x), before, rtol=1e-5, atol=1e-5)
    assert converted(x).min() == 0  # the activation is still there


def test_activation_replaced_by_hand():
    block = Block().eval()
    x = torch.randn(2, 3, 8, 8)
    block.relu = nn.Tanh()
    torch.testing.assert_close(block(x), torch.tanh(block.bn(block.conv(x))), rtol=1e-5, atol=1e-6)


def test_running_statistics_of_a_type_that_torch_refuses():
    batch_norm = nn.BatchNorm2d(3, affine=False)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for function in (batch_norm, lambda x: batch_norm_act(batch_norm, nn.ReLU(), x)):
        with pytest.raises(RuntimeError, match="same datatype"):
            function(x)


def test_deepcopy_and_frozen_parameters():
    block = copy.deepcopy(Block())
    block.bn.weight.requires_grad_(False)
    block(torch.randn(2, 3, 8, 8)).sum().backward()
    assert block.bn.weight.grad is None
    assert block.bn.bias.grad is not None
    assert block.conv.weight.grad is not None


@with_or_without_residual
@pytest.mark.parametrize("early_stop", [True, False])
def test_checkpointing_updates_the_statistics_as_the_modules_do(early_stop, residual):
    block, plain = Block(residual), Block(residual)
    plain.load_state_dict(block.state_dict())
    plain.bn.register_forward_hook(lambda *_: None)  # and so runs as the modules
    x = torch.randn(2, 3, 8, 8)
    with checkpoint.set_checkpoint_early_stop(early_stop):
        for one in (block, plain):
            checkpoint.checkpoint(one, x, use_reentrant=False).square().sum().backward()
    for ours, theirs in zip(block.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(block.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert block.bn.num_batches_tracked == 2


@needs_extension
@with_or_without_residual
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_torch_compile(training, momentum, residual):
    torch.manual_seed(0)
    plain = Block(residual).train(training)
    plain.bn.momentum = momentum
    compiled = copy.deepcopy(plain)
    run = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for size in (8, 8, 10):
        x = torch.randn(2, 3, size, size)
        expected, actual = plain(x), run(x)
        torch.testing.assert_close(actual, expected)
        expected.sum().backward()
        actual.sum().backward()
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(compiled.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@needs_extension
@with_or_without_residual
def test_torch_export_of_an_evaluation_network(residual):
    block = Block(residual).eval()
    x = torch.randn(2, 3, 8, 8)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(block, (x,), dynamic_shapes=({0: batch},))
    assert "cnngraph" not in str(program.graph)
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module()(x), block(x))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_no_value_is_fetched_from_the_device(momentum, monkeypatch):
    def refuse(self):
        raise AssertionError("a value was fetched")

    batch_norm = nn.BatchNorm2d(6, momentum=momentum)
    x = torch.randn(4, 6, 5, 7)
    if not kernels.available():
        pytest.skip("torch's own modules fetch it")
    for name in ("item", "__float__", "__int__", "__bool__", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    batch_norm_act(batch_norm, nn.ReLU(), x)


def test_without_the_extension_results_are_equal_with_one_warning():
    code = """
        import json, sys, warnings
        sys.modules["cnngraph._C"] = None
        import torch
        from torch import nn
        with warnings.catch_warnings(record=True) as at_import:
            warnings.simplefilter("always")
            from cnngraph import kernels
            from cnngraph.nn import batch_norm_act
        torch.manual_seed(0)
        x = torch.randn(4, 3, 5, 5)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            y = [batch_norm_act(nn.BatchNorm2d(3), nn.ReLU(), x) for _ in range(3)][0]
        said = [str(w.message) for w in said if "cnngraph" in str(w.message)]
        at_import = [str(w.message) for w in at_import if "cnngraph" in str(w.message)]
        print(json.dumps({
            "available": kernels.available(), "said": said, "at_import": at_import, "y": y.flatten().tolist(),
        }))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["available"] is False
    assert result["at_import"] == []
    assert len(result["said"]) == 1
    assert "running on plain PyTorch" in result["said"][0]
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    expected = batch_norm_act(nn.BatchNorm2d(3), nn.ReLU(), x).flatten()
    torch.testing.assert_close(torch.tensor(result["y"]), expected, rtol=1e-5, atol=1e-5)
