"""Emitted Python stands alone, has the same `state_dict`, and computes the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from every_op import OTHERS
from round_trip import assert_comes_back
from shipped import ALL, filled, least_input, on_meta, on_meta_text
from torch import nn

import cnngraph
from cnngraph import CnngraphError
from cnngraph.export.python import python_source
from cnngraph.importer import from_module

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = ["lenet", "d2l/densenet", "shufflenet_v2_x1_0", "d2l/googlenet"]


def emitted(source: str) -> type[nn.Module]:
    """The class of the network in emitted source, the last one."""
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(source, "emitted.py", "exec"), namespace)
    classes = [each for each in namespace.values() if getattr(each, "__module__", "") == "emitted"]
    return classes[-1]


def assert_stands_for(network: Any, device: str = "meta") -> nn.Module:
    """The emitted module of a network has its keys and shapes, and computes the same.

    On `meta`, the module needs no time to initialize, but constants are not in the state.
    """
    source = python_source(network)
    assert "cnngraph" not in source
    with torch.device(device):
        module = emitted(source)()
    state = network.state_dict()
    found = {key: tensor.shape for key, tensor in module.state_dict().items()}
    assert found == {key: tensor.shape for key, tensor in state.items()}
    assert list(found) == list(state)
    module.load_state_dict(state, assign=True)
    x = torch.rand(2, *least_input(network.compilation.graph))
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), network.eval()(x))
    return module


def assert_is_a_circle(name: str) -> None:
    """The emitted module of a shipped spec computes the same, and its import is the same graph."""
    network = filled(on_meta(name))
    graph = network.compilation.graph
    assert_comes_back(from_module(assert_stands_for(network), graph.input), graph)


@pytest.mark.parametrize("name", FAST)
def test_emitted_module_computes_the_same_and_comes_back(name: str) -> None:
    assert_is_a_circle(name)


@pytest.mark.parametrize("name", OTHERS)
def test_other_ops_are_emitted(name: str) -> None:
    assert_stands_for(filled(on_meta_text(OTHERS[name])), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in FAST])
def test_every_shipped_spec_is_emitted_and_comes_back(name: str) -> None:
    assert_is_a_circle(name)


def test_an_argument_that_is_none_is_written() -> None:
    graph = "[conv2d: {out_channels: 2, kernel_size: 1}, batch_norm: {momentum: ~}]"
    text = f"cnngraph: 1\nname: net\ninput: [3, 4, 4]\ngraph: {graph}\n"
    network = cnngraph.compile(text, backend="eager")
    assert "momentum=None" in python_source(network)
    module = emitted(python_source(network))()
    module.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 4, 4)
    module(x), network(x)
    torch.testing.assert_close(module.state_dict(), network.state_dict())


def test_side_heads_are_returned_in_training() -> None:
    network = cnngraph.compile(
        """
cnngraph: 1
name: two_heads
input: [3, 16, 16]
graph:
  - conv2d: {name: conv, out_channels: 4, kernel_size: 3}
  - aux: {name: aux1, body: [global_avg_pool2d, flatten, linear: {name: fc, out_features: 3}]}
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 3}
""",
        backend="eager",
    )
    module = emitted(python_source(network))()
    module.load_state_dict(network.state_dict())
    x = torch.randn(2, 3, 16, 16)
    found, expected = module.train()(x), network.train()(x)
    assert found.keys() == expected.keys() == {"logits", "aux1"}
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(module.eval()(x), network.eval()(x))


def test_repeats_are_loops_and_blocks_classes() -> None:
    source = python_source(on_meta("resnet18"))
    assert "class BasicBlock(nn.Module):" in source
    assert "nn.Sequential(*(BasicBlock(64, 64) for _ in range(2)))" in source
    assert source.startswith('"""resnet18: Deep Residual Learning for Image Recognition, 2015.')
    assert "for layer in self:" in python_source(on_meta("d2l/densenet"))
    assert "for layer in self.children():" in python_source(on_meta("densenet121"))


SHARED = """
cnngraph: 1
name: shared
input: [3, 16, 16]
graph:
  - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1}
  - sequential:
      name: head
      body:
        - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1}
        - batch_norm: {name: norm}
        - relu
  - max_pool2d: 2
  - share: {name: pooled, of: head}
  - sequential: {name: last, body: [relu, share: head.norm, add: pooled.conv]}
"""

DOTTED = """
cnngraph: 1
name: dotted
input: [3, 8, 8]
graph:
  - conv2d: {name: convs.0, out_channels: 3, kernel_size: 1}
  - batch_norm: {name: norms.first}
  - relu
  - conv2d: {name: convs.1, out_channels: 3, kernel_size: 1}
  - batch_norm: {name: norms.second}
  - sequential: {name: heads.0, body: [conv2d: {name: c, out_channels: 4, kernel_size: 1}, relu]}
  - layer_scale: {name: scales.a}
  - layer_scale
"""


def test_shared_levels_are_called_twice() -> None:
    whole = SHARED.replace(", add: pooled.conv", "")
    network = cnngraph.compile(whole, backend="eager")
    assert_stands_for(network)
    assert python_source(network).count("self.head(") == 2
    assert_stands_for(cnngraph.compile(SHARED, backend="eager"))
    assert "self.head.norm(x)" in python_source(network)


def test_dots_in_names_open_containers() -> None:
    network = cnngraph.compile(DOTTED, backend="eager")
    assert_stands_for(network)
    source = python_source(network)
    for text in ("self.convs[0](x)", 'self.norms["first"](x)', "self.heads[0](x)", '.scales["a"]'):
        assert text in source


def test_modules_beside_parameters_behind_a_dot_are_refused() -> None:
    spec = DOTTED.replace("scales.a", "norms.a")
    with pytest.raises(CnngraphError, match=r"`norms` has parameters beside modules"):
        python_source(cnngraph.compile(spec, backend="eager"))


def test_num_classes_is_an_argument() -> None:
    module = emitted(python_source(on_meta("resnet20_cifar")))(num_classes=7)
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_num_classes_reaches_every_head() -> None:
    with torch.device("meta"):
        module = emitted(python_source(on_meta("googlenet_aux")))(num_classes=7)
        results = module(torch.empty(2, 3, 224, 224))
    assert {tuple(result.shape) for result in results.values()} == {(2, 7)}


def assert_formatted(names: list[str], folder: Path) -> None:
    ruff = shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    for name in names:
        (folder / f"{name.replace('/', '_')}.py").write_text(python_source(on_meta(name)))
    rules = ["--isolated", "--select", "E,F,W,I,B,UP,SIM", "--ignore", "E501", folder]
    for command in (["format", "--isolated", "--diff", folder], ["check", *rules]):
        done = subprocess.run([ruff, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_emitted_source_is_formatted(tmp_path: Path) -> None:
    assert_formatted(["lenet", "resnet18", "d2l/densenet"], tmp_path)


@pytest.mark.slow
def test_every_emitted_source_is_formatted(tmp_path: Path) -> None:
    assert_formatted(ALL, tmp_path)


def test_an_emitted_network_that_goes_back_to_an_earlier_value_returns_it() -> None:
    spec = """
cnngraph: 1
name: back
input: [3, 4, 4]
graph: [relu, from: input]
"""
    x = torch.randn(2, 3, 4, 4)
    module = emitted(python_source(cnngraph.compile(spec, backend="eager")))()
    assert torch.equal(module(x), x)


def test_op_of_a_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnngraph.ops import OPS

    network = on_meta("lenet")
    relu = next(iter(network.compilation.graph.nodes)).op

    def emit(self: Any, graph: Any, modules: Any, inputs: Any) -> Any:
        return graph.call_function(emitted, tuple(inputs))

    monkeypatch.setattr(OPS[relu.kind], "emit", emit)
    with pytest.raises(CnngraphError, match="`emitted` cannot be written as plain PyTorch"):
        python_source(network)
