"""Predicted memory, against what torch allocates."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SPECS

import cnngraph
from cnngraph import kernels
from cnngraph.bench.devices import peak_of_tensors
from cnngraph.bench.network_step import NetworkStep
from cnngraph.bench.variants import Variant, Work
from cnngraph.graph import Graph
from cnngraph.graph.step_memory import StepMemory, predict
from cnngraph.lowering.network import Network
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import Convolution
from cnngraph.ops.saved import Batch
from cnngraph.options import Options
from cnngraph.passes import passes_of, run_passes
from cnngraph.shape import TensorShape

pytestmark = pytest.mark.usefixtures("one_thread")
compiled = pytest.mark.skipif(
    not kernels.available(), reason="the compiled extension is missing: other tensors are kept"
)

# By variant: plain torch.nn, the fused backend, the same with memory="lean".
POLICIES = {
    "eager": ("eager", "fast"),
    "default-malloc": ("fused", "fast"),
    "lean": ("fused", "lean"),
}


def optimized(
    spec: str | Path, backend: str = "fused", memory: str = "fast", size: int | None = None
) -> Graph:
    graph = cnngraph.check(spec).graph
    assert graph is not None
    if size is not None:
        graph = cnngraph.check(spec, input=(graph.input.channels, size, size)).graph
    assert graph is not None
    return run_passes(graph, passes_of(Options(backend=backend, memory=memory)))[0]


# Networks, and the size of their inputs: the small ones have as many layers, and quicker ones.
SIZES = {"lenet": 28, "resnet18": 64, "mobilenet_v3_small": 64, "googlenet": 64, "densenet121": 64}
MORE_SIZES = {
    "nin": 224, "squeezenet1_1": 128, "resnet20_cifar": 32, "resnet18": 96, "resnet50": 64,
    "d2l/densenet": 96,
}  # fmt: skip
BLOCKS_OF_8 = ("mobilenet_v3_small",)
"""Networks with grouped convolutions whose temporary memory is that of blocks of 8 channels."""


def require_blocks_of_8(name: str) -> None:
    if name in BLOCKS_OF_8 and torch.backends.cpu.get_cpu_capability() != "AVX2":
        pytest.skip("oneDNN has other layouts of grouped weights without AVX2 or with AVX-512")


def agrees(name: str, size: int, batch_size: int, variant: str) -> None:
    require_blocks_of_8(name)
    spec = SPECS / f"{name}.yaml"
    graph = optimized(spec, *POLICIES[variant], size=size)
    held, peak = measured(variant, Work(str(spec), {}, batch_size, tuple(graph.input)))
    predicted = predict(graph, batch_size)
    constant = predicted.weights + predicted.optimizer + predicted.input
    assert constant == pytest.approx(held, rel=0.01)
    assert 0.97 <= predicted.peak / peak <= 1.1


@compiled
@pytest.mark.parametrize("variant", POLICIES)
@pytest.mark.parametrize("name", SIZES)
def test_the_prediction_is_what_a_step_needs(name: str, variant: str) -> None:
    agrees(name, SIZES[name], 4, variant)


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("variant", POLICIES)
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", MORE_SIZES)
def test_the_predictions_of_more_networks(name: str, batch_size: int, variant: str) -> None:
    agrees(name, MORE_SIZES[name], batch_size, variant)


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "googlenet"])
def test_the_fused_backend_needs_no_more_than_eager(name: str, batch_size: int) -> None:
    work = Work(str(SPECS / f"{name}.yaml"), {}, batch_size, (3, 96, 96))
    _, eager = measured("eager", work)
    assert measured("default-malloc", work)[1] <= eager


@compiled
@pytest.mark.parametrize("backend", ["eager", "fused"])
@pytest.mark.parametrize(
    "frozen", [["conv1", "bn1", "layer?"], ["conv1", "bn1", "layer1"], ["*.conv?"], ["layer2"]]
)
def test_frozen_weights_need_no_gradients(frozen: list[str], backend: str) -> None:
    spec = SPECS / "resnet18.yaml"
    net = cnngraph.compile(spec, backend=backend)
    cnngraph.freeze(net, *frozen)
    held, peak = step_with(net, torch.optim.SGD, momentum=0.9)
    predicted = predict(optimized(spec, backend, size=64), 4, frozen=frozen)
    constant = predicted.weights + predicted.optimizer + predicted.input
    assert constant == pytest.approx(held, rel=0.01)
    assert 0.97 <= predicted.peak / peak <= 1.1


def test_a_pattern_of_frozen_weights_must_match() -> None:
    with pytest.raises(cnngraph.CnngraphError, match="`conf1` matches nothing; did you mean"):
        predict(optimized(SPECS / "resnet18.yaml"), frozen=["conf1"])


def test_an_optimizer_needs_memory_for_a_moment() -> None:
    """Where the weights are larger than the activations, the update is the peak."""
    spec = "cnngraph: 1\nname: wide\ninput: [1000]\ngraph:\n  - linear: 1000\n"
    _, peak = step_with(cnngraph.compile(spec, backend="eager"), torch.optim.AdamW)
    predicted = predict(optimized(spec, "eager"), 4).with_optimizer("AdamW")
    assert 0.97 <= predicted.peak / peak <= 1.1
    assert predicted.at_peak["activations"] == 0
    assert sum(predicted.at_peak.values()) == predicted.peak


def step_with(net: Network, kind: Any, **arguments: Any) -> tuple[int, int]:
    """Bytes before a step of four images by an optimizer, and at its peak."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = kind(trained, lr=1e-3, **arguments)
    shape = net.compilation.graph.input
    x = torch.randn(4, *(shape if len(shape) == 1 else (shape.channels, 64, 64)))
    if x.dim() == 4:
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        x = x.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        net(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [*net.parameters(), *net.buffers(), x, *filter(torch.is_tensor, states)]
    held = sum(tensor.nbytes for tensor in tensors)
    gc.collect()  # what others left must not be freed during the step
    return held, held + peak_of_tensors(step)


def measured(variant: str, work: Work) -> tuple[int, int]:
    """Bytes that are there before a step, and at its peak."""
    step = NetworkStep(Variant(variant, ""), work)
    gc.collect()  # what others left must not be freed during the step
    found = step.memory()
    assert found["held_bytes"] is not None
    assert found["tensor_bytes"] is not None
    return found["held_bytes"], found["tensor_bytes"]


@compiled
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [3, 16, 32, 256])
@pytest.mark.parametrize("size", [3, 7, 14, 28, 56])
def test_no_copy_is_predicted_only_where_our_kernels_compute_the_gradient(
    size: int, channels: int, stride: int, kernel: int
) -> None:
    padding = kernel // 2
    op = Conv2d.model_validate(
        {"out_channels": 64, "kernel_size": kernel, "stride": stride, "padding": padding}
    )
    shape = TensorShape((channels, size, size))
    for images in (1, 4, 16):
        batch, output = Batch(images), op.infer(shape)
        if Convolution(op=op).saves(batch, output, shape) == op.saves(batch, output, shape):
            continue
        chosen = kernels.extension.conv_kernel(
            "weight_gradient",
            [images, *shape],
            [64, channels, kernel, kernel],
            stride=[stride, stride],
            padding=[padding, padding],
            dilation=[1, 1],
            groups=1,
        )
        assert chosen != "library"


@compiled
def test_the_prediction_under_autocast() -> None:
    spec = SPECS / "mobilenet_v2.yaml"
    measured = NetworkStep(
        Variant("default-malloc", ""), Work(str(spec), {}, 2, (3, 64, 64), dtype="bfloat16")
    ).memory()
    assert predict(optimized(spec, size=64), 2, "bfloat16").peak == pytest.approx(
        measured["tensor_bytes"], rel=0.1
    )


CHAIN = """
cnngraph: 1
name: chain
input: [2, 8, 8]
graph:
  - conv2d: {name: conv, out_channels: 4, kernel_size: 1, bias: false}
  - tanh: {name: a}
  - silu: {name: b}
"""


def test_a_step_counted_by_hand() -> None:
    """A map of four channels is 1 kB for one image, the weight 32 bytes."""
    predicted = predict(optimized(CHAIN, "eager"), batch_size=1)
    # `a` is the output of tanh and the input of silu: it is there once. What silu results in
    # belongs to the loss.
    assert predicted.kept == 1024 + 1024
    # Beside them, while silu is differentiated: the gradients of its result and of `a`. No gradient
    # of the input.
    assert predicted.step == 4 * 1024
    assert (predicted.weights, predicted.optimizer, predicted.input) == (32, 32, 512)
    assert predicted.peak == 32 + 32 + 512 + 4 * 1024


def test_memory_grows_with_the_batch_and_the_bytes_of_a_value() -> None:
    graph = optimized(CHAIN, "eager")
    one, two = predict(graph, 1), predict(graph, 2)
    assert (two.step, two.input, two.weights) == (2 * one.step, 2 * one.input, one.weights)
    double = predict(graph, 1, "float64")
    assert (double.step, double.input, double.weights) == (
        2 * one.step,
        2 * one.input,
        2 * one.weights,
    )
    with pytest.raises(
        cnngraph.CnngraphError, match="float32, float64, bfloat16, float16, not for `int8`"
    ):
        predict(graph, 1, "int8")


def steps_of(body: str) -> StepMemory:
    return predict(
        optimized(f"cnngraph: 1\nname: net\ninput: [4, 16, 16]\ngraph:\n{body}", "eager"), 1
    )


FIRST = "  - conv2d: {name: conv, out_channels: 4, kernel_size: 1, bias: false}\n"


def test_gradients_of_a_value_with_two_readers_are_added() -> None:
    fork = steps_of(FIRST + "  - parallel: {merge: add, branches: [silu, silu]}\n")
    assert fork.kept == 2 * 4096  # the value that both read, and the loss's
    # The value, the sum's gradient (also that of both branches' results), and the gradient of
    # each branch's input.
    assert fork.step == 4 * 4096
    joined = steps_of(FIRST + "  - parallel: {merge: concat, branches: [silu, silu]}\n")
    # The loss's and the result's gradients are twice as large, and a part of the latter stays until
    # both are through.
    assert joined.step == (1 + 3 * 2) * 4096


def test_slice_of_a_gradient_is_not_added_to_in_place() -> None:
    body = (
        "  - tanh\n  - parallel: {merge: concat, branches: [silu, identity]}\n  - "
        "global_avg_pool2d\n"
    )
    # The value that tanh saves, the result's gradient (twice as large), the gradient of silu's
    # input, and the sum of it and a slice of the result's gradient.
    assert steps_of(FIRST + body).step == (1 + 2 + 1 + 1) * 4096


def test_values_without_a_gradient_are_not_saved() -> None:
    assert steps_of("  - silu\n  - silu\n").kept == 4096
    assert steps_of("  - silu\n  - silu\n" + FIRST).kept == 2 * 4096


def test_lean_needs_less() -> None:
    spec = SPECS / "densenet121.yaml"
    assert predict(optimized(spec, memory="lean")).peak < 0.7 * predict(optimized(spec)).peak
