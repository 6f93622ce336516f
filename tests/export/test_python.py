"""Emitted Python stands alone, has the same `state_dict`, and computes the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SPECS
from torch import nn

import cnngraph
from cnngraph import CnngraphError
from cnngraph.export.python import python_source
from cnngraph.graph.cost import summarize
from cnngraph.importer import from_module

pytestmark = pytest.mark.usefixtures("one_thread")

FAST = ["lenet", "d2l/densenet", "shufflenet_v2_x1_0", "d2l/googlenet"]
ALL = sorted(
    path.relative_to(SPECS).with_suffix("").as_posix()
    for path in [*SPECS.glob("*.yaml"), *SPECS.glob("d2l/*.yaml")]
)


def emitted(source: str) -> type[nn.Module]:
    """The class of the network in emitted source, the last one."""
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(source, "emitted.py", "exec"), namespace)
    classes = [each for each in namespace.values() if getattr(each, "__module__", "") == "emitted"]
    return classes[-1]


def on_meta(spec: str) -> Any:
    with torch.device("meta"):
        return cnngraph.compile(SPECS / f"{spec}.yaml", backend="eager")


def assert_stands_for(name: str) -> nn.Module:
    """Emits a shipped spec; its module has the same keys and shapes. On the meta device."""
    network = on_meta(name)
    source = python_source(network)
    assert "cnngraph" not in source
    with torch.device("meta"):
        module = emitted(source)()
    state = {key: tensor.shape for key, tensor in module.state_dict().items()}
    assert state == {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert list(state) == list(network.state_dict())
    graph = network.compilation.graph
    x = torch.empty(2, *graph.input, device="meta")
    found = module.eval()(x)
    found = found if isinstance(found, dict) else {"": found}
    wanted = graph.features or {"": graph.output}
    assert {key: value.shape for key, value in found.items()} == {
        key: (2, *graph.shape_of(path)) for key, path in wanted.items()
    }
    return module


@pytest.mark.parametrize("name", FAST)
def test_emitted_module_has_the_same_keys_and_shapes(name: str) -> None:
    assert_stands_for(name)


WITH_DOTS = ["res2net50"]
"""Specs with names such as `convs.0`, which no class stands for."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in FAST + WITH_DOTS])
def test_every_shipped_spec_is_emitted(name: str) -> None:
    assert_stands_for(name)


SHARED = """
cnngraph: 1
name: shared
input: [3, 8, 8]
graph: [conv2d: {name: conv, out_channels: 3, kernel_size: 1}, share: conv]
"""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SHARED, "`1` shares its weights, which `--python` cannot write yet"),
        ("res2net50", "named `layer1.0.bns.NAME` with a dot"),
    ],
)
def test_what_cannot_be_written_is_refused(spec: str, message: str) -> None:
    with torch.device("meta"):
        network = cnngraph.compile(spec, backend="eager")
    with pytest.raises(CnngraphError, match=re.escape(message)):
        python_source(network)


@pytest.mark.parametrize("name", ["lenet", "d2l/densenet", "resnet20_cifar", "convnext_tiny"])
def test_emitted_module_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    network = cnngraph.compile(SPECS / f"{name}.yaml", backend="eager")
    module = emitted(python_source(network))()
    module.load_state_dict(network.state_dict())
    shape = network.compilation.graph.input
    size = (shape[0], 28, 28) if name == "lenet" else (shape[0], 64, 64)
    x = torch.randn(2, *size)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(x), network.eval()(x))


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
    assert "nn.Sequential(*(BasicBlock(64) for _ in range(2)))" in source
    assert source.startswith('"""resnet18: Deep Residual Learning for Image Recognition, 2015.')
    assert "for layer in self.children():" in python_source(on_meta("d2l/densenet"))


def test_num_classes_is_an_argument() -> None:
    module = emitted(python_source(on_meta("resnet20_cifar")))(num_classes=7)
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 7)


def test_emitted_source_is_formatted(tmp_path: Path) -> None:
    ruff = shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    for name in ("lenet", "resnet18", "d2l/densenet"):
        (tmp_path / f"{name.replace('/', '_')}.py").write_text(python_source(on_meta(name)))
    done = subprocess.run(
        [ruff, "format", "--isolated", "--diff", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["lenet", "d2l/densenet"])
def test_emitted_module_comes_back(name: str) -> None:
    module = assert_stands_for(name)
    graph = on_meta(name).compilation.graph
    report = cnngraph.check(from_module(module, graph.input).spec)
    assert report.ok, str(report)
    assert report.graph is not None
    assert summarize(report.graph) == summarize(graph)


def test_op_of_a_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cnngraph.ops import OPS

    network = on_meta("lenet")
    relu = next(iter(network.compilation.graph.nodes)).op

    def emit(self: Any, graph: Any, modules: Any, inputs: Any) -> Any:
        return graph.call_function(emitted, tuple(inputs))

    monkeypatch.setattr(OPS[relu.kind], "emit", emit)
    with pytest.raises(CnngraphError, match="`emitted` cannot be written as plain PyTorch"):
        python_source(network)
