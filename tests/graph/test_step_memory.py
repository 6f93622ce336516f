"""Predicted memory, against what torch allocates."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from conftest import SPECS

import cnngraph
from cnngraph import kernels
from cnngraph.bench.network_step import NetworkStep
from cnngraph.bench.variants import Variant, Work
from cnngraph.graph import Graph
from cnngraph.graph.step_memory import StepMemory, predict
from cnngraph.options import Options
from cnngraph.passes import passes_of, run_passes

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


def optimized(spec: str | Path, backend: str = "fused", memory: str = "fast") -> Graph:
    graph = cnngraph.check(spec).graph
    assert graph is not None
    return run_passes(graph, passes_of(Options(backend=backend, memory=memory)))[0]


@compiled
@pytest.mark.parametrize("variant", POLICIES)
@pytest.mark.parametrize(
    "name", ["lenet", "nin", "squeezenet1_1", "resnet20_cifar", "resnet18", "shufflenet_v2_x1_0", "mobilenet_v2", "densenet121",
             "d2l/googlenet", "googlenet"]
)  # fmt: skip
def test_the_prediction_is_what_a_step_needs(name: str, variant: str) -> None:
    spec = SPECS / f"{name}.yaml"
    graph = optimized(spec, *POLICIES[variant])
    work = Work(str(spec), {}, 2, tuple(graph.input))
    held, peak = measured(variant, work)
    predicted = predict(graph, batch_size=2)
    assert predicted.weights + predicted.optimizer + predicted.input == pytest.approx(
        held, rel=0.01
    )
    assert predicted.step == pytest.approx(peak - held, rel=0.1)
    assert 0.97 <= predicted.peak / peak <= 1.1


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("variant", POLICIES)
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", ["resnet18", "resnet20_cifar"])
def test_the_prediction_at_other_batches(name: str, batch_size: int, variant: str) -> None:
    """Small convolutions and few positions are the library's, whose gradients need copies."""
    spec = SPECS / f"{name}.yaml"
    graph = optimized(spec, *POLICIES[variant])
    _, peak = measured(variant, Work(str(spec), {}, batch_size, tuple(graph.input)))
    assert 0.97 <= predict(graph, batch_size).peak / peak <= 1.1


def measured(variant: str, work: Work) -> tuple[int, int]:
    """Bytes that are there before a step, and at its peak."""
    step = NetworkStep(Variant(variant, ""), work)
    gc.collect()  # what others left must not be freed during the step
    found = step.memory()
    assert found["held_bytes"] is not None
    assert found["tensor_bytes"] is not None
    return found["held_bytes"], found["tensor_bytes"]


@compiled
def test_the_prediction_under_autocast() -> None:
    spec = SPECS / "mobilenet_v2.yaml"
    measured = NetworkStep(
        Variant("default-malloc", ""), Work(str(spec), {}, 2, (3, 224, 224), dtype="bfloat16")
    ).memory()
    assert predict(optimized(spec), 2, "bfloat16").peak == pytest.approx(
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
