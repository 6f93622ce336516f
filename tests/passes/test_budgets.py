"""Memory budgets: steps stay within them, at the least time, with unchanged results."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SPECS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import cnngraph
from cnngraph import kernels
from cnngraph.bench.devices import peak_of_tensors
from cnngraph.graph import Graph
from cnngraph.graph.step_memory import predict
from cnngraph.graph.step_time import extra_time
from cnngraph.kernels import batch_norm_act as kernel
from cnngraph.ops import register
from cnngraph.ops.op import ShapePreserving
from cnngraph.options import Options, budget_of
from cnngraph.passes import passes_of, run_passes
from cnngraph.report.compilation import code_of
from cnngraph.shape import TensorShape

pytestmark = pytest.mark.usefixtures("one_thread")
compiled = pytest.mark.skipif(
    not kernels.available(), reason="the compiled extension is missing: other tensors are kept"
)

BLOCKS = """
cnngraph: 1
name: blocks
input: [3, 16, 16]
blocks:
  bottleneck:
    body:
      - residual:
          name: ~
          body:
            - conv2d: {name: conv1, out_channels: 8, kernel_size: 1, bias: false}
            - batch_norm: {name: bn1}
            - relu
            - dropout: 0.3
            - conv2d: {name: conv2, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
            - batch_norm: {name: bn2, momentum: ~}
            - silu
            - conv2d: {name: conv3, out_channels: 32, kernel_size: 1, bias: false}
            - batch_norm: {name: bn3}
          shortcut: [{conv2d: {name: down, out_channels: 32, kernel_size: 1}}, {batch_norm: {name: down_bn}}]
      - relu
graph:
  - conv2d: {name: stem, out_channels: 32, kernel_size: 3, padding: 1}
  - batch_norm: {name: bn}
  - relu
  - parallel:
      a: [{conv2d: {name: conv, out_channels: 12, kernel_size: 1}}, {batch_norm: {name: bn}}, relu]
      b: [{conv2d: {name: conv, out_channels: 16, kernel_size: 1}}, {batch_norm: {name: bn}}, relu]
  - repeat: {name: layer, times: 4, body: bottleneck}
  - aux: {name: side, body: [global_avg_pool2d, flatten, {linear: {name: fc, out_features: 5}}]}
  - parallel:
      a: {conv2d: {out_channels: 4, kernel_size: 1}}
      b: [{instance_norm: {name: norm, track_running_stats: true}}, {layer_scale: {name: gamma, init_value: 0.5}}]
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 5}
"""


def graph_of(spec: Any, **options: Any) -> Graph:
    graph = cnngraph.check(spec).graph
    assert graph is not None
    return run_passes(graph, passes_of(Options(**options)))[0]


def kinds(graph: Graph) -> set[str]:
    return {node.op.kind for node in graph.nodes}


def budget(spec: Any, share: float, batch_size: int) -> str:
    """A share of the way from the least a step can do with to all it may want."""
    whole = graph_of(spec)
    most, least = predict(whole, batch_size).peak, least_of(spec, batch_size)
    return f"{(least + share * (most - least)) / 1e3 + 0.1:.3f}KB"


def least_of(spec: Any, batch_size: int) -> int:
    """Of the graph that the choice is made of."""
    from cnngraph.passes.recompute_to_fit import _least

    return _least(graph_of(spec, disable_passes=("eliminate_concat", "convolutions")), batch_size)


# --- what is computed -----------------------------------------------------------------------------


def step(net: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Everything that a step results in: outputs, gradients, buffers."""
    torch.manual_seed(seed)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    results = net(x)
    sum(value.square().sum() for value in results.values()).backward()
    assert x.grad is not None
    found = {f"result {name}": value.detach() for name, value in results.items()}
    found |= {f"gradient {name}": parameter.grad for name, parameter in net.named_parameters()}
    return found | dict(net.named_buffers()) | {"input": x.grad}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_results_gradients_and_statistics_are_those_without_a_budget(share: float) -> None:
    plain = cnngraph.compile(BLOCKS).double()
    net = cnngraph.compile(BLOCKS, memory=budget(BLOCKS, share, 4), batch_size=4).double()
    net.load_state_dict(plain.state_dict())
    for seed in range(3):
        expected, found = step(plain, seed), step(net, seed)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert plain.layer.get_submodule("0").bn1.num_batches_tracked == 3
    plain.eval()
    net.eval()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(net(x), plain(x))
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x))


@pytest.mark.filterwarnings("ignore:cnngraph. running on plain PyTorch")
def test_without_the_extension_too(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(kernels, "extension", None)
    test_results_gradients_and_statistics_are_those_without_a_budget(0.2)


def test_frozen_parameters_and_a_network_in_evaluation() -> None:
    plain = cnngraph.compile(BLOCKS).double().eval()
    net = cnngraph.compile(BLOCKS, memory=budget(BLOCKS, 0, 4), batch_size=4).double().eval()
    net.load_state_dict(plain.state_dict())
    found = []
    for network in (plain, net):
        network.stem.requires_grad_(False)
        x = torch.randn(
            2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        network(x).square().sum().backward()
        found.append(
            {
                name: parameter.grad
                for name, parameter in network.named_parameters()
                if "side" not in name
            }
        )
    for name, gradient in found[0].items():
        assert (gradient is None) == name.startswith("stem")
        torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.filterwarnings("ignore")
def test_torch_compiles_and_exports_it() -> None:
    torch.compiler.reset()
    net = cnngraph.compile(BLOCKS, memory=budget(BLOCKS, 0, 4), batch_size=4).eval()
    x = torch.randn(4, 3, 16, 16)
    expected = net(x)
    torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), expected)


def test_everything_stays_at_its_path() -> None:
    plain = cnngraph.compile(BLOCKS)
    net = cnngraph.compile(BLOCKS, memory=budget(BLOCKS, 0, 4), batch_size=4)
    assert "recomputed" in kinds(
        graph_of(BLOCKS, memory=net.compilation.options.memory, batch_size=4)
    )
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in net.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]
    own = [name for name, _ in net.named_modules() if not name.startswith("_recomputed_")]
    assert own == [name for name, _ in plain.named_modules()]


def test_modules_put_in_the_place_of_others_are_used() -> None:
    net = cnngraph.compile(BLOCKS, memory=budget(BLOCKS, 0, 4), batch_size=4).double()
    before = step(net)
    net.layer.get_submodule("0").conv2.weight.data.zero_()
    calls = []
    net.layer.get_submodule("1").conv1.register_forward_hook(lambda *given: calls.append(given))
    after = step(net)
    assert not torch.equal(before["result logits"], after["result logits"])
    assert len(calls) == 2  # once more in backward


def test_copies_of_the_network_compute_the_same(tmp_path: Path) -> None:
    net = cnngraph.compile(BLOCKS, memory=budget(BLOCKS, 0, 4), batch_size=4).double()
    cnngraph.save_compiled(net, tmp_path / "net.pt")
    loaded = cnngraph.load_compiled(tmp_path / "net.pt")
    assert loaded.compilation.options == net.compilation.options
    assert loaded.code == net.code
    copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded]
    expected = step(net)
    for other in copies:
        found = step(other)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)


def test_another_backend_loads_it_without_the_budget(tmp_path: Path) -> None:
    net = cnngraph.compile(
        BLOCKS, memory=budget(BLOCKS, 0, 4), batch_size=4, disable_passes=["channels_last"]
    )
    cnngraph.save_compiled(net, tmp_path / "net.pt")
    loaded = cnngraph.load_compiled(tmp_path / "net.pt", backend="eager")
    assert loaded.compilation.options == Options(backend="eager")


def test_features_come_with_less_memory_too() -> None:
    net = cnngraph.compile(BLOCKS, memory=budget(BLOCKS, 0, 4), batch_size=4).eval()
    plain = cnngraph.compile(BLOCKS).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net.forward_features(x), plain.forward_features(x))


# --- what is chosen -------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize(
    ("name", "share"), [("mobilenet_v2", 0.5), ("densenet121", 0.3), ("googlenet", 0.3)]
)
def test_the_budget_is_kept(name: str, share: float) -> None:
    spec = SPECS / f"{name}.yaml"
    memory = budget(spec, share, 2)
    net = cnngraph.compile(spec, memory=memory, batch_size=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-5, momentum=0.9)
    x = torch.randn(2, 3, 224, 224)

    def run() -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    run()
    optimizer.zero_grad()
    gc.collect()
    predicted = net.step_memory(2)
    limit = budget_of(memory)
    assert limit is not None
    assert predicted.peak <= limit
    assert predicted.step == pytest.approx(peak_of_tensors(run), rel=0.1)


@compiled
def test_nothing_of_a_step_outlives_it() -> None:
    """What operators keep for backward, their own results among it, is freed with the step."""
    net = cnngraph.compile(SPECS / "resnet18.yaml", memory="164MB", batch_size=2)
    assert "recomputed" in code_of(net)
    own = kernel.batch_norm_act
    results: list[weakref.ref[torch.UntypedStorage]] = []

    def spy(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        found = own(*arguments)
        results.append(weakref.ref(found[0].untyped_storage()))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "batch_norm_act", spy)
        net(torch.randn(2, 3, 64, 64)).sum().backward()
    gc.collect()
    assert len(results) > 20
    assert not any(result() for result in results)


def test_cheapest_recomputation_comes_first() -> None:
    spec = SPECS / "resnet50.yaml"
    whole, lean = graph_of(spec), graph_of(spec, memory="lean")
    assert graph_of(spec, memory="100GB") == whole
    found = [graph_of(spec, memory=f"{budget_bytes}KB") for budget_bytes in falling(spec, 6)]
    peaks = [predict(graph, 16).peak for graph in found]
    times = [extra_time(graph) for graph in found]
    assert peaks == sorted(peaks, reverse=True)
    assert times == sorted(times)
    assert times[0] <= extra_time(lean) < times[-1] < 1 / 3 + 0.01
    assert extra_time(graph_of(spec, memory=f"{0.74 * predict(whole).peak / 1e9}GB")) < 0.09
    assert "recomputed" not in kinds(found[0])
    assert "recomputed" in kinds(found[-1])


def falling(spec: Any, count: int) -> list[int]:
    most, least = predict(graph_of(spec), 16).peak, least_of(spec, 16)
    return [(most - (most - least) * (index + 1) // (count + 1)) // 1000 for index in range(count)]


def test_steps_that_fit_recompute_nothing() -> None:
    assert kinds(graph_of(BLOCKS, memory="1GB")) == kinds(graph_of(BLOCKS))


def test_steps_that_cannot_fit_are_reported_before_training() -> None:
    least = least_of(BLOCKS, 64)
    with pytest.raises(cnngraph.CnngraphError) as caught:
        cnngraph.compile(BLOCKS, memory=f"{least // 2 / 1000}KB", batch_size=64)
    message = str(caught.value)
    assert message.startswith("a training step of batch 64 does not fit into ")
    assert (
        f"it needs {least / 1e6:.1f} MB at its peak even if everything possible is recomputed"
        in message
    )
    fits = int(message.rpartition("A batch of ")[2].split()[0])
    assert least_of(BLOCKS, fits) <= least // 2 < least_of(BLOCKS, fits + 1)
    with pytest.raises(
        cnngraph.CnngraphError, match="No batch fits: weights, gradients and the optimizer's state"
    ):
        cnngraph.compile(BLOCKS, memory="20KB")


# --- how it is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "bytes"),
    [
        ("6GB", 6 * 10**9),
        ("512MB", 512 * 10**6),
        ("1.5 GiB", 3 * 2**29),
        ("200 kb", 200_000),
        (" 2mib ", 2**21),
    ],
)
def test_budgets(given: str, bytes: int) -> None:
    assert budget_of(given) == bytes


@pytest.mark.parametrize(
    "given", ["6", "GB", "6 GG", "-1GB", "0MB", "1e9GB", "", "leaner", 6, None]
)
def test_invalid_budgets(given: Any) -> None:
    with pytest.raises(
        cnngraph.CnngraphError,
        match="choose one of fast, lean, or give a budget: 6GB, 512MB, 1.5 GiB",
    ):
        cnngraph.compile(BLOCKS, memory=given)


def test_policies_have_no_budget() -> None:
    assert budget_of("fast") is None
    assert budget_of("lean") is None


@pytest.mark.parametrize("given", [0, -1, 1.5, "16", None, True])
def test_invalid_batch_sizes(given: Any) -> None:
    with pytest.raises(cnngraph.CnngraphError, match="a batch has at least one image"):
        cnngraph.compile(BLOCKS, batch_size=given)


@pytest.mark.parametrize("memory", ["lean", "1GB"])
def test_eager_keeps_what_torch_keeps(memory: str) -> None:
    with pytest.raises(
        cnngraph.CnngraphError, match=f"memory `{memory}` is for the backend `fused`"
    ):
        cnngraph.compile(BLOCKS, backend="eager", memory=memory)


def kept_states(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each part that a step computes again, whether it keeps the state of the random
    numbers."""
    kept: list[bool] = []

    def recorded(*args: Any, preserve_rng_state: bool, **options: Any) -> Any:
        kept.append(preserve_rng_state)
        return checkpoint(*args, preserve_rng_state=preserve_rng_state, **options)

    monkeypatch.setattr(sys.modules["cnngraph.nn.recompute"], "checkpoint", recorded)
    net(torch.randn(2, 8, 8, 8)).sum().backward()
    return kept


def around(node: str) -> str:
    """Two maps with a node between that is computed again."""
    conv = "conv2d: {out_channels: 8, kernel_size: 1, bias: false}"
    return (
        f"cnngraph: 1\nname: n\ninput: [8, 8, 8]\ngraph:\n- {conv}\n- sigmoid\n- {node}\n- "
        f"{conv}\n- {conv}\n- sigmoid\n- {conv}\n"
    )


@pytest.mark.parametrize(
    ("node", "draws"),
    [
        ("tanh", False),
        ("dropout: 0.5", True),
        ("dropout: 0.0", True),
        ("drop_path: 0.5", True),
        ("noise", True),
    ],
)
def test_random_states_are_kept_where_numbers_may_be_drawn(
    node: str, draws: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    @register
    class Noise(ShapePreserving):
        """A plugin's op that does not declare whether it draws random numbers."""

        kind = "noise"

        def module(self, *inputs: TensorShape) -> nn.Module:
            return nn.Tanh()

    text = around(node)
    net = cnngraph.compile(text, memory=budget(text, 0, 2), batch_size=2)
    kept = kept_states(net, monkeypatch)
    assert kept
    assert any(kept) is draws


@pytest.mark.parametrize("change", ["dropout", "hook", "own class"])
def test_random_states_are_kept_where_a_user_may_draw(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = around("tanh: {name: act}")
    net = cnngraph.compile(text, memory=budget(text, 0, 2), batch_size=2)
    if change == "dropout":
        net.act = nn.Sequential(nn.Tanh(), nn.Dropout(0.5))
    elif change == "hook":
        net.act.register_forward_hook(lambda module, args, result: result * torch.rand(()))
    else:
        net.act = type("Drawing", (nn.Tanh,), {})()
    assert any(kept_states(net, monkeypatch))
