"""What can go wrong on a GPU alone: graphs, streams, synchronisation, determinism, scaled
gradients, and very large tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from test_lowering import BODIES, assert_same, batch, compiled, spec, step, total
from torch import Tensor, nn

import cnngraph
from cnngraph.bench.devices import captured
from cnngraph.kernels.batch_norm_act import batch_norm_act
from cnngraph.kernels.max_pool2d import max_pool2d

pytestmark = pytest.mark.usefixtures("gpu")

every_body = pytest.mark.parametrize("name", BODIES)


def trained(network: nn.Module, x: Tensor) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """A whole training step under autocast, as it would be captured, and what lets go of the
    gradients."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=x.dtype is torch.float32):
            loss = total(network(x))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run, lambda: optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("memory", ["fast", "lean"])
@every_body
def test_a_captured_step_is_the_step(name: str, memory: str) -> None:
    """Losses, weights and running statistics of five steps: captured, and one by one."""
    network = cnngraph.compile(spec(BODIES[name]), memory=memory).double().cuda()
    plain = copy.deepcopy(network)
    x = batch().cuda()
    run, held = trained(network, x)
    run()
    replay = captured(run, held)
    expected, _ = trained(plain, x)
    for _ in range(2):
        expected()
    for _ in range(3):
        torch.testing.assert_close(replay(), expected(), rtol=1e-9, atol=1e-10)
    assert_same(dict(network.state_dict()), dict(plain.state_dict()))


@every_body
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["autocast", "float64"])
def test_the_host_waits_for_nothing(name: str, dtype: torch.dtype) -> None:
    network = compiled(BODIES[name], "fused", dtype).cuda()
    run, _ = trained(network, batch(dtype).cuda())
    run()
    try:
        torch.cuda.set_sync_debug_mode("error")
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_body
def test_another_stream(name: str) -> None:
    """Whoever does not run on the current stream reads the input before it is there."""
    network = compiled(BODIES[name], "fused").cuda()
    x = batch().cuda()
    expected = step(copy.deepcopy(network), x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(copy.deepcopy(network), x)  # so that none is allocated below, which might wait
        late = torch.zeros_like(x)
        torch.cuda._sleep(100_000_000)
        late.copy_(x)
        found = step(network, late)
    stream.synchronize()
    assert_same(found, expected)


@every_body
def test_another_device_than_the_current(name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    network = compiled(BODIES[name], "fused")
    expected = step(copy.deepcopy(network).cuda(0), batch().cuda(0))
    found = step(network.cuda(1), batch().cuda(1))
    assert torch.cuda.current_device() == 0
    assert_same({name: value.cuda(0) for name, value in found.items()}, expected)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", ["residual", "dense", "parallel"])
def test_deterministic_mode_gives_the_same_bits(name: str) -> None:
    network = compiled(BODIES[name], "fused", torch.float32).cuda()
    x = torch.randn(32, 3, 56, 56, device="cuda")
    first, *others = (step(copy.deepcopy(network), x) for _ in range(4))
    for other in others:
        for key, value in first.items():
            assert torch.equal(other[key], value), key


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_float16_with_scaled_gradients(memory: str) -> None:
    """A step whose gradients overflow is left out; the others learn."""
    torch.manual_seed(0)
    network = cnngraph.compile(
        spec(BODIES["residual"] + "\n        - global_avg_pool2d\n        - flatten"), memory=memory
    )
    network.cuda()
    x, labels = torch.randn(16, 3, 8, 8, device="cuda"), torch.arange(16, device="cuda") % 6
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40, growth_interval=1000)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = nn.functional.cross_entropy(network(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert 1 < scaler.get_scale() < 2.0**40
    assert losses[-1] < 0.5 * losses[0]
    assert all(
        parameter.dtype is torch.float32 and parameter.isfinite().all()
        for parameter in network.parameters()
    )


@pytest.mark.parametrize("name", ["residual", "dense", "parallel"])
def test_torch_compile_around_the_network(name: str) -> None:
    torch.compiler.reset()
    network = compiled(BODIES[name], "fused").cuda()
    expected = step(copy.deepcopy(network), batch().cuda())
    assert_same(step(network, batch().cuda(), torch.compile(network, fullgraph=True)), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("operator", ["batch_norm_act", "max_pool2d"])
def test_more_values_than_an_int_counts(operator: str, layout: torch.memory_format) -> None:
    """One image 33 times, with gradients as equal: each result is that of the image alone."""
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs 40 GB of free GPU memory")

    def run(x: Tensor) -> Tensor:
        if operator == "max_pool2d":
            return max_pool2d(x, (3, 3), (1, 1), (1, 1), (1, 1), False, False)
        return batch_norm_act(x, None, None, None, None, 1e-5, "silu")[0]

    generator = torch.Generator("cuda").manual_seed(0)
    image, grad = torch.randn(2, 1, 64, 1024, 1024, device="cuda", generator=generator).bfloat16()
    results = []
    for count in (1, 33):
        x = image.expand(count, -1, -1, -1).contiguous(memory_format=layout).requires_grad_()
        y = run(x)
        y.backward(grad.expand(count, -1, -1, -1).contiguous(memory_format=layout))
        assert x.grad is not None
        results.append((y.detach(), x.grad))
    for one, many in zip(*results, strict=True):
        for index in (0, 15, 16, 31, 32):
            torch.testing.assert_close(many[index], one[0], rtol=1e-2, atol=1e-2)
    assert results[1][0].numel() > 2**31
