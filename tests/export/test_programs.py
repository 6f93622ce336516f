"""Exported files compute what the network does, for other batches and sizes too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import SPECS

import cnngraph
from cnngraph import CnngraphError
from cnngraph.export import programs

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


def test_program_accepts_any_batch_and_size(tmp_path: Path) -> None:
    network = cnngraph.compile(TINY, backend="eager").eval()
    exported = programs.export_program(network, tmp_path / "tiny.pt2")
    assert exported.least_size is not None
    assert exported.error == 0
    run = torch.export.load(tmp_path / "tiny.pt2").module()
    x = torch.rand(5, 3, 21, 34)
    torch.testing.assert_close(run(x), network(x))


def test_size_is_fixed_where_the_network_fixes_it(tmp_path: Path) -> None:
    network = cnngraph.compile(SPECS / "lenet.yaml", backend="eager").eval()
    assert programs.export_program(network, tmp_path / "lenet.pt2").least_size is None


def test_onnx_is_checked_with_onnx_runtime(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    network = cnngraph.compile(TINY, backend="eager").eval()
    exported = programs.export_onnx(network, tmp_path / "tiny.onnx", opset=20)
    assert exported.error < 1e-5
    assert onnx.load(tmp_path / "tiny.onnx").opset_import[0].version == 20
    session = onnxruntime.InferenceSession(str(tmp_path / "tiny.onnx"))
    x = torch.rand(4, 3, 20, 12)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), network(x), rtol=1e-5, atol=1e-5)


ONNX = ["shufflenet_v2_x0_5", "mobilenet_v3_small", "unet"]
"""Shipped specs of different kinds that are exported in seconds."""


@pytest.mark.slow
@pytest.mark.parametrize("spec", ONNX)
def test_shipped_specs_agree_with_onnx_runtime(spec: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    network = cnngraph.compile(SPECS / f"{spec}.yaml", backend="eager")
    exported = programs.export_onnx(network, tmp_path / "exported.onnx")
    assert exported.error <= 1e-5


def test_file_that_differs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = cnngraph.compile(TINY, backend="eager").eval()
    monkeypatch.setattr(programs, "_TOLERANCE", -1.0)
    with pytest.raises(CnngraphError, match=r"tiny.pt2 differs from the network by"):
        programs.export_program(network, tmp_path / "tiny.pt2")


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    network = cnngraph.compile(TINY, backend="eager")
    with pytest.raises(CnngraphError, match=r'pip install "cnngraph\[export\]"'):
        programs.export_onnx(network, tmp_path / "tiny.onnx")
