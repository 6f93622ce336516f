"""The dense block over ordinary modules: it must mean x = cat([x, layer(x)]) for each layer,
always."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import on_every_device, operators_of
from torch import Tensor, nn
from torch.utils import checkpoint

from cnngraph import kernels
from cnngraph.bench.devices import peak_of_tensors
from cnngraph.nn import dense_block

needs_extension = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)
both_layouts = pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=str
)
one_or_two_steps = pytest.mark.parametrize("steps", [1, 2])
kept_or_not = pytest.mark.parametrize("keep", [True, False], ids=["fast", "lean"])


class Block(nn.Module):
    """A dense block, as the function or as the modules."""

    def __init__(
        self,
        channels: int = 6,
        growth: int = 5,
        layers: int = 3,
        steps: int = 2,
        bias: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        norm: dict[str, Any] | None = None,
        keep: bool = True,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.keep, self.plain = keep, False
        self.layers = nn.ModuleList()
        for _ in range(layers):
            layer, read = nn.ModuleList(), channels
            for step in range(steps):
                last = step == steps - 1
                made, size = (growth, 3) if last else (7, 1)
                conv = nn.Conv2d(read, made, size, padding=size // 2, bias=bias)
                layer.append(
                    nn.ModuleList(
                        [randomised(nn.BatchNorm2d(read, **norm or {})), activation(), conv]
                    )
                )
                read = made
            self.layers.append(layer)
            channels += growth

    def forward(self, x: Tensor) -> Tensor:
        if not self.plain:
            return dense_block(x, self.nested, self.keep)
        for layer in self.layers:
            value = x
            for norm, activation, conv in layer:  # pyright: ignore[reportGeneralTypeIssues]
                value = conv(activation(norm(value)))
            x = torch.cat([x, value], 1)
        return x

    @property
    def nested(self) -> Any:
        return tuple(tuple(tuple(step) for step in layer) for layer in self.layers)  # pyright: ignore[reportArgumentType]

    @property
    def norms(self) -> Iterator[nn.BatchNorm2d]:
        return (module for module in self.modules() if isinstance(module, nn.BatchNorm2d))

    def as_modules(self) -> Block:
        other = copy.deepcopy(self)
        other.plain = True
        return other


def randomised(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 1.5)
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 1.5)
    return norm


def assert_same_step(block: Block, x: Tensor, rtol=1e-8, atol=1e-8, context: Any = None) -> None:
    """Output, gradients and buffers of a step against the modules in float64."""
    block.zero_grad()
    plain, given = block.as_modules().double(), x.detach().clone().requires_grad_(x.requires_grad)
    with context or torch.enable_grad():
        actual = block(given)
        with torch.no_grad():
            assert actual.dtype == block.as_modules()(given).dtype
    wide = x.detach().double().requires_grad_(x.requires_grad)
    with torch.autocast(x.device.type, enabled=False):
        expected = plain(wide)
    inputs = [given, wide]
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol)
    grad = torch.randn_like(actual)
    if expected.requires_grad:
        actual.backward(grad)
        expected.backward(grad.double())
    for ours, theirs in zip(
        [inputs[0], *block.parameters()], [inputs[1], *plain.parameters()], strict=True
    ):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None and theirs.grad is not None:
            scale = theirs.grad.abs().max().item() + 1
            torch.testing.assert_close(
                ours.grad.double(), theirs.grad, rtol=10 * rtol, atol=10 * atol * scale
            )
    for ours, theirs in zip(block.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=max(rtol, 1e-6), atol=max(atol, 1e-6)
        )


def is_fused(function: Callable[[], object]) -> bool:
    return torch.ops.cnngraph.dense_block.default in operators_of(function)


def input_of(
    *shape: int,
    dtype: torch.dtype = torch.float64,
    layout: Any = torch.contiguous_format,
    device: str = "cpu",
) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(*shape, dtype=torch.float64) * 2 + 1
    return x.to(device, dtype).contiguous(memory_format=layout).requires_grad_()


@both_layouts
@one_or_two_steps
@kept_or_not
@pytest.mark.parametrize("bias", [True, False], ids=["bias", ""])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_equals_the_modules(
    layout, steps: int, keep: bool, bias: bool, training: bool, device: str
) -> None:
    block = Block(steps=steps, bias=bias, keep=keep).double().train(training).to(device)
    assert_same_step(block, input_of(3, 6, 7, 5, layout=layout, device=device))
    assert_same_step(block, input_of(2, 6, 1, 1, layout=layout, device=device))


@both_layouts
@kept_or_not
@on_every_device(torch.float32, torch.bfloat16)
def test_types(device: str, dtype: torch.dtype, layout, keep: bool) -> None:
    tolerance = 1e-4 if dtype is torch.float32 else 3e-2
    for channels, growth in ((16, 8), (10, 5)):
        block = Block(channels, growth, keep=keep, activation=nn.SiLU).to(device, dtype)
        x = input_of(4, channels, 9, 7, dtype=dtype, layout=layout, device=device)
        assert_same_step(block, x, rtol=tolerance, atol=tolerance)


@needs_extension
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_bfloat16_is_within_the_roundings_of_its_layers(training: bool) -> None:
    """A gradient passes through two convolutions, two norms and a sum in each of six layers."""
    block = Block(32, 16, layers=6).bfloat16().train(training)
    x = input_of(4, 32, 12, 12, dtype=torch.bfloat16, layout=torch.channels_last)
    exact = copy.deepcopy(block).double()
    grad = torch.randn(4, 128, 12, 12).bfloat16()
    gradients = []
    for one in (block, exact):
        value = x.detach().to(next(one.parameters()).dtype).requires_grad_()
        one(value).backward(grad.to(value.dtype))
        gradients.append(value.grad.double())  # pyright: ignore[reportOptionalMemberAccess]
    ours, expected = gradients
    roundings = 6 * 5
    assert (ours - expected).norm() < roundings**0.5 * torch.finfo(
        torch.bfloat16
    ).eps * expected.norm()


@pytest.mark.parametrize(
    "activation",
    [nn.Identity, nn.SiLU, nn.GELU, nn.Hardswish, nn.ELU, lambda: nn.LeakyReLU(0.2), nn.Softplus],
)
@both_layouts
def test_activations(activation: Callable[[], nn.Module], layout) -> None:
    assert_same_step(Block(activation=activation).double(), input_of(3, 6, 7, 5, layout=layout))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "norm",
    [
        {"momentum": None},
        {"affine": False},
        {"track_running_stats": False},
        {"eps": 0.3, "momentum": 0.7},
        {"affine": False, "track_running_stats": False},
    ],
    ids=str,
)
def test_settings_of_the_norms(norm: dict[str, Any], training: bool) -> None:
    block = Block(norm=norm).double().train(training)
    for _ in range(2):
        assert_same_step(block, input_of(3, 6, 7, 5))
    assert not kernels.available() or is_fused(lambda: block(input_of(3, 6, 7, 5)))


def with_convs(conv: Callable[[int], nn.Conv2d]) -> Block:
    """The layers' last convolutions, for the channels they read, are these."""
    block = Block(channels=8, growth=8, steps=1)
    for index, layer in enumerate(block.layers):
        layer[0][2] = conv(8 + 8 * index)  # pyright: ignore
    return block.double()


@both_layouts
@pytest.mark.parametrize(
    "conv",
    [
        lambda channels: nn.Conv2d(channels, 8, 3, padding=2, dilation=2),
        lambda channels: nn.Conv2d(channels, 8, (3, 5), padding=(1, 2)),
        lambda channels: nn.Conv2d(channels, 8, (1, 3), padding=(0, 2), dilation=(1, 2)),
        lambda channels: nn.Conv2d(channels, 8, 3, padding=1, groups=4),
        lambda channels: nn.Conv2d(channels, 8, 3, padding="same", bias=channels > 8),
        lambda channels: nn.Conv2d(channels, 8, 1, padding="valid"),
    ],
)
def test_geometry(conv: Callable[[int], nn.Conv2d], layout) -> None:
    block = with_convs(conv)
    assert_same_step(block, input_of(2, 8, 7, 6, layout=layout))
    assert not kernels.available() or is_fused(lambda: block(input_of(2, 8, 7, 6)))


@pytest.mark.parametrize(
    "conv",
    [
        lambda channels: nn.Conv2d(channels, 8, (2, 3), padding="same"),
        lambda channels: nn.Conv2d(channels, 8, 3, padding=1, padding_mode="circular"),
    ],
)
def test_unsupported_convolutions_run_the_modules(conv: Callable[[int], nn.Conv2d]) -> None:
    block = with_convs(conv)
    assert_same_step(block, input_of(2, 8, 7, 6))
    assert not kernels.available() or not is_fused(lambda: block(input_of(2, 8, 7, 6)))


@one_or_two_steps
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_only_what_requires_a_gradient_gets_one(steps: int, training: bool) -> None:
    names = [name for name, _ in Block(steps=steps, bias=True).named_parameters()]
    for frozen in (
        [[name] for name in names]
        + [names[:n] for n in range(1, len(names))]
        + [names[n:] for n in (0, 5)]
    ):
        for input_wanted in (True, False):
            block = Block(steps=steps, bias=True).double().train(training)
            for name in frozen:
                block.get_parameter(name).requires_grad_(False)
            assert_same_step(block, input_of(2, 6, 4, 3).detach().requires_grad_(input_wanted))


@needs_extension
def test_convolutions_run_backward_only_for_required_gradients() -> None:
    block = Block(steps=1, layers=4)
    for parameter in block.layers[:2].parameters():
        parameter.requires_grad_(False)
    for parameter in block.nested[2][0][2].parameters():
        parameter.requires_grad_(False)
    with torch.profiler.profile(record_shapes=True) as recorded:
        block(torch.randn(2, 6, 5, 5)).sum().backward()
    shapes = [
        event.input_shapes
        for event in recorded.events()
        if event.name == "aten::convolution_backward"
    ]
    assert len(shapes) == 2
    assert shapes[0][1] == [2, 21, 5, 5]


@both_layouts
def test_bfloat16_under_autocast(layout, device: str) -> None:
    block = Block(16, 8, bias=True).to(device)
    with torch.autocast(device, torch.bfloat16):
        x = input_of(3, 16, 7, 5, dtype=torch.bfloat16, layout=layout, device=device)
        assert_same_step(block, x, 3e-2, 3e-2, torch.autocast(device, torch.bfloat16))
        assert not kernels.available() or is_fused(lambda: block(x))
        assert block(x).dtype is torch.bfloat16
        assert_same_step(
            block,
            x.float().detach().requires_grad_(),
            3e-2,
            3e-2,
            torch.autocast(device, torch.bfloat16),
        )
        assert not is_fused(lambda: block(x.float()))
    assert all(
        parameter.grad is not None and parameter.grad.dtype is torch.float32
        for parameter in block.parameters()
    )


def test_other_inputs() -> None:
    block = Block().double()
    assert_same_step(block, torch.randn(3, 7, 5, 6).double().permute(0, 3, 1, 2).requires_grad_())
    assert_same_step(block, torch.randn(6, 7, 5, 3).double().permute(3, 0, 2, 1).requires_grad_())
    assert_same_step(block, torch.randn(3, 12, 14, 5).double()[:, ::2, ::2].requires_grad_())
    with pytest.raises(ValueError, match=r"Expected more than 1 value per channel when training"):
        block(torch.randn(1, 6, 1, 1).double())
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        block(torch.randn(6, 4, 4).double())
    with pytest.raises(RuntimeError):
        block(torch.randn(2, 7, 4, 4).double())
    block.eval()
    assert block(torch.randn(1, 6, 1, 1).double()).shape == (1, 21, 1, 1)
    assert block(torch.randn(0, 6, 4, 4).double()).shape == (0, 21, 4, 4)


@both_layouts
def test_nan_and_infinity_go_where_the_modules_send_them(layout) -> None:
    for value in (float("nan"), float("inf")):
        for training in (True, False):
            block = Block().double().train(training)
            x = input_of(2, 6, 5, 4, layout=layout).detach()
            x[0, 2, 1, 1] = value
            with torch.no_grad():
                torch.testing.assert_close(block(x), block.as_modules()(x), equal_nan=True)


@needs_extension
def test_mixed_modes_run_as_the_modules() -> None:
    block = Block().double()
    next(block.norms).eval()
    assert not is_fused(lambda: block(input_of(2, 6, 4, 4)))
    assert_same_step(block, input_of(2, 6, 4, 4))


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_hooks_fire(kind: str, part: int) -> None:
    fired = []
    block = Block()
    getattr(block.nested[1][0][part], f"register_{kind}_hook")(lambda *_: fired.append(kind))
    block(torch.randn(2, 6, 4, 4, requires_grad=True)).sum().backward()
    assert fired


@needs_extension
def test_operator_runs_only_if_it_is_exact() -> None:
    x = torch.randn(2, 6, 4, 4)
    assert is_fused(lambda: Block()(x))

    class MyConv(nn.Conv2d):
        pass

    def changed(index: int, module: nn.Module) -> Block:
        block = Block()
        block.layers[1][0][index] = module  # pyright: ignore
        return block

    assert is_fused(lambda: changed(2, nn.Conv2d(11, 7, 1))(x))
    assert not is_fused(lambda: changed(2, MyConv(11, 7, 1))(x))
    assert not is_fused(
        lambda: changed(2, nn.utils.parametrizations.weight_norm(nn.Conv2d(11, 7, 1)))(x)
    )
    assert not is_fused(lambda: changed(1, nn.Tanh())(x))
    assert not is_fused(lambda: changed(0, nn.BatchNorm2d(11, eps=0.1))(x))
    assert not is_fused(lambda: changed(0, nn.InstanceNorm2d(11))(x))
    assert not is_fused(
        lambda: Block().to("meta")(x.to("meta"))
    )  # stands for a device without kernels
    assert_same_step(changed(1, nn.Tanh()).double(), input_of(2, 6, 4, 4))


def test_transforms_of_functions() -> None:
    block = Block(activation=nn.SiLU).double().eval()
    plain = block.as_modules()
    x, tangent = torch.randn(2, 2, 6, 3, 3).double()
    for transform in (
        lambda network: torch.func.jvp(network, (x,), (tangent,))[1],
        lambda network: torch.func.grad(lambda x: network(x).square().sum())(x),
        lambda network: torch.vmap(network)(torch.stack((x, tangent))),
        lambda network: torch.autograd.functional.jvp(network, x, tangent)[1],
    ):
        torch.testing.assert_close(transform(block), transform(plain))


@kept_or_not
def test_second_derivatives_and_a_second_backward(keep: bool) -> None:
    block = Block(activation=nn.SiLU, keep=keep, bias=True).double()

    def penalty(one: Block) -> list[Tensor]:
        x = input_of(2, 6, 3, 4)
        (first,) = torch.autograd.grad(one(x).sin().sum(), x, create_graph=True)
        loss = first.square().sum()
        loss.backward(retain_graph=True)
        once = x.grad.clone()  # pyright: ignore[reportOptionalMemberAccess]
        loss.backward()
        return [once, x.grad, *(p.grad for p in one.parameters() if p.grad is not None)]  # pyright: ignore

    for ours, theirs in zip(penalty(block), penalty(block.as_modules()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("early_stop", [True, False])
def test_checkpointing_updates_the_statistics_as_the_modules_do(early_stop: bool) -> None:
    block = Block().double()
    plain = block.as_modules()
    x = torch.randn(2, 6, 5, 5).double()
    with checkpoint.set_checkpoint_early_stop(early_stop):
        for one in (block, plain):
            checkpoint.checkpoint(one, x, use_reentrant=False).square().sum().backward()  # pyright: ignore
    for ours, theirs in zip(block.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(block.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert next(block.norms).num_batches_tracked == 2


def test_synchronised_norms_run_as_modules() -> None:
    block = Block().eval()
    x = torch.randn(2, 6, 5, 5)
    before = block(x)
    torch.testing.assert_close(nn.SyncBatchNorm.convert_sync_batchnorm(block)(x), before)


@needs_extension
@kept_or_not
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_torch_compile(training: bool, keep: bool) -> None:
    plain = Block(keep=keep, bias=True).train(training)
    compiled = copy.deepcopy(plain)
    run = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for size in (8, 8, 10):
        x = torch.randn(2, 6, size, size).contiguous(memory_format=torch.channels_last)
        expected, actual = plain(x), run(x)
        torch.testing.assert_close(actual, expected)
        expected.sum().backward()
        actual.sum().backward()
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(compiled.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@needs_extension
def test_torch_export_of_an_evaluation_network() -> None:
    block = Block().eval()
    x = torch.randn(2, 6, 8, 8)
    program = torch.export.export(
        block, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=64)},)
    )
    assert "cnngraph" not in str(program.graph)
    x = torch.randn(5, 6, 8, 8)
    torch.testing.assert_close(program.module()(x), block(x))


@needs_extension
def test_memory_is_linear_in_the_layers() -> None:
    """What a layer adds to the peak of a step is its two results, whatever came before; kept
    activations add more."""

    def peak(layers: int, keep: bool) -> int:
        block = Block(32, 16, layers=layers, keep=keep)
        x = torch.randn(2, 32, 32, 32).contiguous(memory_format=torch.channels_last)
        block(x).sum().backward()
        return peak_of_tensors(lambda: block(x).sum().backward())

    lean = {layers: peak(layers, keep=False) for layers in (8, 16, 32)}
    fast = {layers: peak(layers, keep=True) for layers in (8, 16, 32)}
    assert lean[32] - lean[16] < 2.2 * (lean[16] - lean[8])
    assert fast[32] - fast[16] > 3 * (fast[16] - fast[8])
    assert lean[32] < 0.25 * fast[32]


@needs_extension
def test_nothing_is_saved_without_requires_grad() -> None:
    block = Block(32, 16, layers=16)
    x = torch.randn(2, 32, 32, 32).contiguous(
        memory_format=torch.channels_last
    )  # no layout of the library's own
    size = x.numel() * x.element_size() * (32 + 16 * 16) // 32
    for training in (True, False):
        block.train(training)
        with torch.no_grad():
            assert peak_of_tensors(lambda: block(x)) < 2.5 * size
