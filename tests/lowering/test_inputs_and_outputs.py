"""Networks with several inputs and several outputs, which the spec names."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cnngraph
from cnngraph.errors import CnngraphError

RGBD = """
cnngraph: 1
name: rgbd
inputs: {rgb: [3, 16, 16], depth: [1, 16, 16], meta: [4]}
outputs: {maps: fused, logits: .}
graph:
  - conv2d: {name: stem, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
  - batch_norm: {name: norm}
  - relu: {name: colours}
  - sequential:
      name: distances
      from: depth
      body:
        - conv2d: {name: conv, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
        - batch_norm: {name: norm}
        - relu
  - concat: {name: fused, with: [colours, .]}
  - aux: {name: side, body: [global_avg_pool2d, flatten]}
  - global_avg_pool2d
  - flatten
  - concat: [., meta]
  - linear: {name: fc, out_features: 5}
"""


def images(dtype: torch.dtype = torch.float64, batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(batch, *shape, generator=generator, dtype=dtype)
        for shape in ((3, 16, 16), (1, 16, 16), (4,))
    )  # pyright: ignore


def pair(**options: Any) -> tuple[cnngraph.Network, cnngraph.Network]:
    fused = cnngraph.compile(RGBD, **options).double()
    eager = cnngraph.compile(RGBD, backend="eager").double()
    eager.load_state_dict(fused.state_dict())
    return fused, eager


def close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("memory", ["fast", "lean", "4MB"])
def test_fused_equals_eager_in_training_and_evaluation(memory: str) -> None:
    fused, eager = pair(memory=memory)
    results = fused(*images()), eager(*images())
    assert list(results[0]) == ["maps", "logits", "side"]
    close(*results)
    for result in results:
        sum(value.square().sum() for value in result.values()).backward()
    for ours, theirs in zip(fused.parameters(), eager.parameters(), strict=True):
        close(ours.grad, theirs.grad)
    close(dict(fused.named_buffers()), dict(eager.named_buffers()))
    results = fused.eval()(*images()), eager.eval()(*images())
    assert list(results[0]) == ["maps", "logits"]
    close(*results)
    close(fused.for_inference()(*images()), results[1])


def test_inputs_are_those_of_a_network_written_by_hand() -> None:
    _, net = pair()
    rgb, depth, meta = images()
    colours = net.norm(net.stem(rgb)).relu()
    maps = torch.cat([colours, net.distances(depth)], 1)
    features = torch.cat([maps.mean((2, 3)), meta], 1)
    close(
        net(rgb, depth, meta), {"maps": maps, "logits": net.fc(features), "side": maps.mean((2, 3))}
    )


def test_forward_has_the_names_of_the_inputs() -> None:
    net, _ = pair()
    rgb, depth, meta = images()
    assert list(inspect.signature(net.forward).parameters) == ["rgb", "depth", "meta"]
    close(net(meta=meta, depth=depth, rgb=rgb), net(rgb, depth, meta))
    inference = net.eval().for_inference()
    close(inference(meta=meta, depth=depth, rgb=rgb), net(rgb, depth, meta))


def test_one_named_input() -> None:
    text = (
        "cnngraph: 1\nname: net\ninputs: {image: [3, 8, 8]}\ngraph: [relu, tanh: {from: image}]\n"
    )
    net = cnngraph.compile(text)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(image=x), x.tanh())


def test_an_input_may_have_the_name_of_a_function_of_the_code() -> None:
    text = """
cnngraph: 1
name: net
inputs: {conv2d: [3, 8, 8], torch: [3, 8, 8]}
graph:
  - conv2d: {name: conv, out_channels: 3, kernel_size: 1}
  - concat: torch
"""
    x = torch.randn(2, 3, 8, 8)
    net = cnngraph.compile(text)
    close(net(conv2d=x, torch=x), torch.cat([net.conv(x), x], 1))


def test_copies_and_pickles() -> None:
    net, _ = pair()
    net.eval()
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(made) is type(net)
        close(made(*images()), net(*images()))
    inference = net.for_inference()
    close(pickle.loads(pickle.dumps(inference))(*images()), inference(*images()))


def test_export_trace_and_fx_name_the_inputs() -> None:
    net = cnngraph.compile(RGBD).eval()
    inputs = images(torch.float32)
    program = torch.export.export(net, inputs)
    assert program.graph_signature.user_inputs == ("rgb", "depth", "meta")
    close(program.module()(*inputs), net(*inputs))
    traced: Any = torch.fx.symbolic_trace(net)
    assert [node.name for node in traced.graph.nodes][:3] == ["rgb", "depth", "meta"]
    close(traced(*inputs), net(*inputs))
    script: Any = torch.jit.trace(net, inputs, strict=False)
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    close(torch.jit.load(file)(*inputs), net(*inputs))


def test_saved_and_loaded(tmp_path: Path) -> None:
    net = cnngraph.compile(RGBD).eval()
    cnngraph.save_compiled(net, tmp_path / "net.pt")
    inputs = images(torch.float32)
    close(cnngraph.load_compiled(tmp_path / "net.pt").eval()(*inputs), net(*inputs))


def test_report_names_inputs_and_outputs() -> None:
    report = cnngraph.check(RGBD)
    assert report.graph is not None
    assert "rgb 3x16x16, depth 1x16x16, meta 4 -> maps 16x16x16, logits 5" in str(report)
    assert report.sizes is not None
    assert report.sizes.valid == tuple(range(1, 65))
    assert str(report.graph).startswith("graph rgbd(rgb: 3x16x16, depth: 1x16x16, meta: 4)")
    memory = cnngraph.compile(RGBD).step_memory(batch_size=2)
    assert memory.input == 2 * 4 * (4 * 16 * 16 + 4)


def test_sizes_of_inputs_grow_together() -> None:
    text = """
cnngraph: 1
name: net
inputs: {small: [3, 16, 16], large: [3, 32, 32]}
graph:
  - upsample: 2
  - concat: large
"""
    report = cnngraph.check(text)
    assert report.sizes is not None
    assert report.sizes.valid == tuple(range(2, 65, 2))


def test_chosen_outputs_replace_those_of_the_spec() -> None:
    net = cnngraph.compile(RGBD, outputs=["colours", "distances"])
    assert list(net(*images(torch.float32))) == ["colours", "distances"]


def test_features_of_a_network_with_inputs() -> None:
    net = cnngraph.compile(RGBD.replace("outputs: {maps: fused, logits: .}\n", "")).eval()
    rgb, depth, meta = images(torch.float32)
    assert net.forward_features(rgb, depth, meta).shape == (4, 16, 16, 16)


def test_outputs_as_a_list_in_a_variant(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(RGBD)
    variant = tmp_path / "variant.yaml"
    variant.write_text(
        "cnngraph: 1\nname: v\nextends: base.yaml\noutputs: [colours, distances.conv]\n"
        "inputs: {rgb: [3, 8, 8], depth: [1, 8, 8], meta: [2]}\n"
    )
    net = cnngraph.compile(variant).eval()
    results = net(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 2))
    assert {name: tuple(value.shape) for name, value in results.items()} == {
        "colours": (1, 8, 8, 8), "distances.conv": (1, 8, 8, 8),
    }  # fmt: skip
    assert net.fc.in_features == 18


def test_benchmarks_refuse_several_inputs() -> None:
    from cnngraph.bench.arithmetic import resized

    graph = cnngraph.check(RGBD).graph
    assert graph is not None
    with pytest.raises(CnngraphError, match="several inputs"):
        resized(graph, graph.input)
