"""Exported files compute what the network does, for other batches and sizes too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import SPECS
from every_op import OTHERS, SHIPPED
from shipped import filled, on_meta, on_meta_text, small
from typer.testing import CliRunner

import cnngraph
from cnngraph import CnngraphError
from cnngraph.cli import app
from cnngraph.export import programs
from cnngraph.ops import OPS

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

TINY = """
cnngraph: 1
name: tiny
input: [3, 16, 16]
graph:
  - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1}
  - batch_norm: {name: bn}
  - relu
  - max_pool2d: 2
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 3}
"""


U_NET = """
cnngraph: 1
name: unet
input: [3, 8, 8]
graph:
  - conv2d: {name: down, out_channels: 4, kernel_size: 3, padding: 1}
  - max_pool2d: 2
  - conv_transpose2d: {name: up, out_channels: 4, kernel_size: 2, stride: 2}
  - concat: down
"""

TWO = """
cnngraph: 1
name: two
inputs: {rgb: [3, 8, 8], depth: [1, 8, 8]}
outputs: {relu: stem, logits: .}
graph:
  - conv2d: {name: stem, out_channels: 4, kernel_size: 3}
  - conv2d: {name: depth_stem, from: depth, out_channels: 4, kernel_size: 3}
  - add: stem
  - relu
  - flatten
  - linear: {name: fc, out_features: 3}
"""


def test_program_accepts_any_batch_and_size(tmp_path: Path) -> None:
    network = cnngraph.compile(TINY, backend="eager").eval()
    exported = programs.export_program(network, tmp_path / "tiny.pt2")
    assert exported.inputs == {"input": "N x 3 x 2+ x 2+"}
    assert exported.error < 1e-6
    run = torch.export.load(tmp_path / "tiny.pt2").module()
    x = torch.rand(5, 3, 21, 34)
    torch.testing.assert_close(run(x), network(x))


def test_size_is_fixed_where_the_network_fixes_it(tmp_path: Path) -> None:
    network = cnngraph.compile(SPECS / "lenet.yaml", backend="eager").eval()
    exported = programs.export_program(network, tmp_path / "lenet.pt2")
    assert exported.inputs == {"input": "N x 1 x 28 x 28"}


def test_size_is_a_multiple_where_other_sizes_do_not_fit(tmp_path: Path) -> None:
    network = cnngraph.compile(U_NET, backend="eager").eval()
    exported = programs.export_program(network, tmp_path / "unet.pt2")
    assert exported.inputs == {"input": "N x 3 x 2k x 2k"}
    run = torch.export.load(tmp_path / "unet.pt2").module()
    x = torch.rand(1, 3, 6, 12)
    torch.testing.assert_close(run(x), network(x))


def test_all_inputs_and_results_are_exported(tmp_path: Path) -> None:
    network = cnngraph.compile(TWO, backend="eager").eval()
    exported = programs.export_program(network, tmp_path / "two.pt2")
    assert exported.inputs == {"rgb": "N x 3 x 8 x 8", "depth": "N x 1 x 8 x 8"}
    given = torch.rand(3, 3, 8, 8), torch.rand(3, 1, 8, 8)
    found = torch.export.load(tmp_path / "two.pt2").module()(*given)
    torch.testing.assert_close(found, network(*given))


def skip_without_onnx() -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed")


def test_onnx_is_checked_with_onnx_runtime(tmp_path: Path) -> None:
    skip_without_onnx()
    import onnx
    import onnxruntime

    network = cnngraph.compile(TINY, backend="eager").eval()
    exported = programs.export_onnx(network, tmp_path / "tiny.onnx", opset=20)
    assert exported.error < 1e-5
    assert onnx.load(tmp_path / "tiny.onnx").opset_import[0].version == 20
    session = onnxruntime.InferenceSession(str(tmp_path / "tiny.onnx"))
    x = torch.rand(4, 3, 20, 12)
    (found,) = session.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), network(x), rtol=1e-5, atol=1e-5)


def test_onnx_has_the_names_of_inputs_and_results(tmp_path: Path) -> None:
    skip_without_onnx()
    import onnxruntime

    network = cnngraph.compile(TWO, backend="eager").eval()
    programs.export_onnx(network, tmp_path / "two.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "two.onnx"))
    rgb, depth = torch.rand(3, 3, 8, 8), torch.rand(3, 1, 8, 8)
    found = session.run(["logits", "relu"], {"depth": depth.numpy(), "rgb": rgb.numpy()})
    expected = network(rgb, depth)
    for name, result in zip(["logits", "relu"], found, strict=True):
        torch.testing.assert_close(torch.from_numpy(result), expected[name])


def test_openvino_computes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    network = cnngraph.compile(TWO, backend="eager").eval()
    exported = programs.export_openvino(network, tmp_path / "two.xml")
    assert exported.error < 1e-5


def test_name_of_an_openvino_model_ends_in_xml(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    network = cnngraph.compile(TINY, backend="eager")
    with pytest.raises(CnngraphError, match=r"cannot write .*tiny.bin: the name .* ends in .xml"):
        programs.export_openvino(network, tmp_path / "tiny.bin")


@pytest.mark.parametrize("also", [[], ["--onnx", "same.py"]])
def test_command_writes_no_file_over_another(also: list[str], tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(TINY)
    python = "same.py" if also else str(spec)
    result = CliRunner().invoke(app, ["export", str(spec), "--python", python, *also])
    assert result.exit_code == 2
    assert "is given twice" in result.output
    assert spec.read_text() == TINY


@pytest.mark.slow
@pytest.mark.parametrize("spec", SHIPPED)
def test_shipped_specs_agree_with_onnx_runtime(spec: str, tmp_path: Path) -> None:
    skip_without_onnx()
    assert programs.export_onnx(small(spec, 32), tmp_path / "exported.onnx").error < 5e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maps", "signals"])
def test_other_ops_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    skip_without_onnx()
    network = filled(on_meta_text(OTHERS[name]))
    assert programs.export_onnx(network, tmp_path / "exported.onnx").error < 5e-5


@pytest.mark.parametrize("name", OTHERS)
def test_other_ops_agree_with_their_program(name: str, tmp_path: Path) -> None:
    network = filled(on_meta_text(OTHERS[name]))
    assert programs.export_program(network, tmp_path / "exported.pt2").error < 5e-5


def test_these_networks_have_every_op() -> None:
    networks = [*map(on_meta, SHIPPED), *map(on_meta_text, OTHERS.values())]
    kinds = {node.op.kind for network in networks for node in network.compilation.graph.nodes}
    assert {*OPS} - kinds == {"module"}


def test_file_that_differs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = cnngraph.compile(TINY, backend="eager").eval()
    monkeypatch.setattr(programs, "_TOLERANCE", -1.0)
    monkeypatch.setattr(programs, "_TIMES_OWN", 0)
    with pytest.raises(CnngraphError, match=r"tiny.pt2: it differs from the network by"):
        programs.export_program(network, tmp_path / "tiny.pt2")
    assert not [*tmp_path.iterdir()]


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    network = cnngraph.compile(TINY, backend="eager")
    with pytest.raises(CnngraphError, match=r'pip install "cnngraph\[export\]"'):
        programs.export_onnx(network, tmp_path / "tiny.onnx")
