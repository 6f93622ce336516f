"""The function over ordinary modules: it must mean torch.cat of activation(batch_norm(input))
always."""

import copy

import pytest
import torch
from conftest import operators_of
from torch import nn
from torch.utils import checkpoint

from cnngraph import kernels
from cnngraph.nn import cat_batch_norm_act

needs_extension = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)


class Doubled(nn.BatchNorm2d):
    def forward(self, input):
        return super().forward(input) * 2


def branches_of(activation=nn.ReLU):
    """Modules and channels: a batch norm and its activation, a value, an activation alone, a batch
    norm alone."""
    torch.manual_seed(0)
    made = [
        (nn.BatchNorm2d(6), activation()),
        (None, None),
        (None, nn.ReLU()),
        (nn.BatchNorm2d(4), None),
    ]
    for norm, _ in made:
        if norm is not None:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            norm.running_mean.normal_()
    return nn.ModuleList(
        nn.ModuleList([norm or nn.Identity(), act or nn.Identity()]) for norm, act in made
    ), made


def inputs_of(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(3, channels, 5, 7, generator=generator).to(dtype) for channels in (6, 3, 5, 4)
    ]


def operators(function):
    """The operators that a call runs, by name."""
    return [str(operator) for operator in operators_of(function)]


def assert_same_step(pairs, xs, call=cat_batch_norm_act, fused=1, rtol=1e-4, atol=1e-5):
    """Output, gradients and buffers of one call against the modules in float64, and how often the
    operator ran."""
    ours = copy.deepcopy(pairs)
    plain = [[module and copy.deepcopy(module).double() for module in pair] for pair in pairs]
    theirs = [x.detach().double().requires_grad_() for x in xs]
    own = [x.detach().clone().requires_grad_() for x in xs]
    parts = []
    for (norm, act), x in zip(plain, theirs, strict=True):
        z = x if norm is None else norm(x)
        parts.append(z if act is None else act(z))
    expected = torch.cat(parts, 1)

    def check(found, exact, rtol, atol):
        torch.testing.assert_close(found.double(), exact.double(), rtol=rtol, atol=atol)

    results = []
    ran = operators(
        lambda: results.append(
            call(*((norm, act, x) for (norm, act), x in zip(ours, own, strict=True)))
        )
    )
    if kernels.available():
        assert ran.count("cnngraph.cat_batch_norm_act.default") == fused
    (actual,) = results
    assert actual.dtype == torch.cat([x[:0, :0] for x in xs]).dtype
    check(actual, expected, rtol, atol)
    grad = torch.randn_like(actual)
    expected.backward(grad.double())
    actual.backward(grad)
    for a, b in zip(own, theirs, strict=True):
        check(a.grad, b.grad, rtol, 10 * atol)
    for (norm, _), (other, _) in zip(ours, plain, strict=True):
        if norm is None:
            continue
        for a, b in zip(norm.parameters(), other.parameters(), strict=True):
            check(a.grad, b.grad, 10 * rtol, 100 * atol)
        for a, b in zip(norm.buffers(), other.buffers(), strict=True):
            check(a, b, 1e-2 if a.dtype == torch.bfloat16 else 1e-5, atol)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_its_modules(dtype, training):
    module, pairs = branches_of()
    module.to(dtype).train(training)
    assert_same_step(pairs, inputs_of(dtype))


def test_branches_with_another_activation_run_first():
    _, pairs = branches_of(nn.SiLU)
    assert_same_step(pairs, inputs_of())  # SiLU is the first; the ReLU alone is another
    _, pairs = branches_of(nn.Softplus)
    assert_same_step(pairs, inputs_of())
    _, pairs = branches_of(nn.Identity)
    assert_same_step(pairs, inputs_of())


@pytest.mark.parametrize("what", ["subclass", "hook", "activation", "relu's hook"])
def test_unsupported_modules_run_unchanged(what):
    _, pairs = branches_of()
    if what == "subclass":
        pairs[0] = (Doubled(6), nn.ReLU())
    elif what == "hook":
        pairs[0][0].register_forward_hook(lambda module, inputs, output: output * 3)
    elif what == "activation":
        pairs[0] = (pairs[0][0], nn.PReLU())
    else:
        pairs[2][1].register_forward_hook(lambda module, inputs, output: output + 1)
    assert_same_step(pairs, inputs_of())


def test_without_supported_branches_torch_concatenates():
    pairs = [(None, None), (Doubled(3), nn.ReLU())]
    xs = inputs_of()[:2]
    assert_same_step(pairs, xs, fused=0)
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert_same_step(branches_of()[1], inputs_of(), fused=0)
    finally:
        handle.remove()


def test_unsupported_inputs_run_the_modules():
    _, pairs = branches_of()
    first, second, *others = inputs_of()
    assert_same_step(pairs, [first, second.double(), *others], fused=0)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        cat_batch_norm_act((*pairs[0], first), (None, None, second[..., :2]))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        cat_batch_norm_act((*pairs[0], first[:1, :, :1, :1]), (None, None, second[:1, :, :1, :1]))


def test_under_autocast():
    _, pairs = branches_of()
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_step(pairs, inputs_of(torch.bfloat16), rtol=2e-2, atol=2e-2)


def test_frozen_parameters_have_no_gradient():
    _, pairs = branches_of()
    pairs[0][0].weight.requires_grad_(False)
    xs = [x.requires_grad_() for x in inputs_of()]
    cat_batch_norm_act(
        *((norm, act, x) for (norm, act), x in zip(pairs, xs, strict=True))
    ).sum().backward()
    assert pairs[0][0].weight.grad is None
    assert pairs[0][0].bias.grad is not None


@needs_extension
@pytest.mark.parametrize("early_stop", [True, False])
def test_checkpoints_update_statistics_as_torch_does(early_stop):
    def step(call):
        _, pairs = branches_of()
        xs = [x.requires_grad_() for x in inputs_of()]

        def run(*xs):
            return call(*((norm, act, x) for (norm, act), x in zip(pairs, xs, strict=True)))

        with checkpoint.set_checkpoint_early_stop(early_stop):
            checkpoint.checkpoint(run, *xs, use_reentrant=False).sum().backward()
        return [buffer for norm, _ in pairs if norm is not None for buffer in norm.buffers()]

    def modules(*branches):
        return torch.cat(
            [(act or nn.Identity())((norm or nn.Identity())(x)) for norm, act, x in branches], 1
        )

    for ours, theirs in zip(step(cat_batch_norm_act), step(modules), strict=True):
        torch.testing.assert_close(ours, theirs)


@needs_extension
def test_transforms_and_tangents_run_the_modules():
    _, pairs = branches_of()
    for norm, _ in pairs:
        if norm is not None:
            norm.eval()
    first, second, third, fourth = inputs_of()

    def function(x):
        return cat_batch_norm_act(
            (*pairs[0], x), (*pairs[1], second), (*pairs[2], third), (*pairs[3], fourth)
        )

    _, tangent = torch.func.jvp(function, (first,), (torch.ones_like(first),))
    assert torch.isfinite(tangent).all()
    assert tangent.any()


def test_without_the_extension_the_modules_run(monkeypatch):
    monkeypatch.setattr(kernels, "extension", None)
    monkeypatch.setattr(kernels, "warn_if_unavailable", lambda: None)
    assert_same_step(branches_of()[1], inputs_of(), fused=0)
