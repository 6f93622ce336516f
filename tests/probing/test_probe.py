"""What a batch does in a network, forward and backward, and the verdict on it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import cnngraph
from cnngraph import CnngraphError, Probe
from cnngraph.cli import app
from cnngraph.probing.batch import batch_for

DEEP = """
cnngraph: 1
name: deep
input: [1, 8, 8]
params: {norm: false, skip: false, std: 0.048, bias: 0.0}
blocks:
  layer:
    body:
      - conv2d:
          out_channels: 16
          kernel_size: 3
          padding: 1
          init: {weight: {normal: {std: "${std}"}}, bias: {constant: {val: "${bias}"}}}
      - when: {test: "${norm}", body: batch_norm}
      - relu
graph:
  - layer
  - repeat:
      times: 48
      body:
        - when: {test: "${skip}", body: {residual: {body: layer}}}
        - when: {test: "${not skip}", body: layer}
  - global_avg_pool2d
  - flatten
  - linear: 10
"""
MAPS = """
cnngraph: 1
name: maps
inputs: {a: [2, 8, 8], b: [2, 8, 8]}
graph:
  - add: [a, b]
  - conv2d: {name: conv, out_channels: 3, kernel_size: 3}
"""


def problems(found: Probe) -> list[str]:
    return [finding.problem for finding in found.findings]


def helps(found: Probe) -> str:
    return "\n".join(text for finding in found.findings for text in finding.help)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients_vanish_in_a_lenet_of_sigmoids_and_not_in_a_lenet_of_relus(seed: int) -> None:
    sigmoid = cnngraph.probe("lenet", data="random", seed=seed)
    assert problems(sigmoid) == ["vanishing"]
    assert "relu in place of sigmoid" in helps(sigmoid)
    assert problems(cnngraph.probe("lenet", {"activation": "relu"}, seed=seed)) == []


def test_gradients_vanish_in_plain_layers_with_torchs_default_weights() -> None:
    found = cnngraph.probe(DEEP)
    assert "vanishing" in problems(found)
    assert "nothing changes" in found.findings[0].text
    assert "batch_norm" in helps(found)
    assert "residual" in helps(found)


def test_gradients_arrive_with_kaimings_weights() -> None:
    assert problems(cnngraph.probe(DEEP, {"std": 0.118})) == []


def test_gradients_explode_with_large_weights() -> None:
    found = cnngraph.probe(DEEP, {"std": 0.3})
    assert problems(found) == ["exploding"]
    assert "smaller weights" in helps(found)


def test_gradients_explode_in_plain_layers_with_batch_norms() -> None:
    found = cnngraph.probe(DEEP, {"norm": True})
    assert problems(found) == ["exploding"]
    assert "residual blocks" in helps(found)


def test_gradients_arrive_in_residual_layers_with_batch_norms() -> None:
    assert problems(cnngraph.probe(DEEP, {"norm": True, "skip": True})) == []


def test_shortcuts_alone_keep_gradients_from_fading() -> None:
    plain, residual = (cnngraph.probe(DEEP, {"skip": skip}) for skip in (False, True))
    first = [found.layers[0].gradient or 0.0 for found in (plain, residual)]
    assert first[0] < 1e-15
    assert first[1] > 1e-2


def test_units_die_with_negative_biases() -> None:
    found = cnngraph.probe(DEEP, {"bias": -3.0, "std": 0.118})
    assert "dead" in problems(found)
    assert "biases of zero" in helps(found)


def test_what_is_not_finite_explodes() -> None:
    found = cnngraph.probe(DEEP, {"std": 1e3})
    assert problems(found)[0] == "exploding"
    assert "is not finite" in found.findings[0].text


def test_statistics_are_those_of_the_layers() -> None:
    found = cnngraph.probe("lenet", {"activation": "relu"}, batch_size=4, seed=3, data="random")
    torch.manual_seed(3)
    net = cnngraph.compile("lenet", {"activation": "relu"}, backend="eager").train()
    batch = batch_for(net.compilation.graph, "random", 4, 3)
    assert batch.labels is not None
    outputs: list[torch.Tensor] = []
    x = batch.images[0]
    for layer in net.children():
        x = layer(x)
        x.retain_grad()
        outputs.append(x)
    loss = F.cross_entropy(x, batch.labels)
    loss.backward()
    assert found.loss == pytest.approx(loss.item())
    assert len(found.layers) == len(outputs)
    for layer, output in zip(found.layers, outputs, strict=True):
        assert output.grad is not None
        values = output.detach()
        assert layer.mean == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-7)
        assert layer.std == pytest.approx(float(values.std(correction=0)), rel=1e-4)
        assert layer.gradient == pytest.approx(float(output.grad.norm()), rel=1e-4)
        module = net.get_submodule(layer.path)
        weight = getattr(module, "weight", None)
        if weight is None:
            assert layer.relative is None
        else:
            relative = (weight.grad.norm() / weight.norm()).item()
            assert layer.relative == pytest.approx(relative, rel=1e-4)
        if layer.kind == "relu":
            dead = float((values.transpose(0, 1).flatten(1) == 0).all(1).float().mean())
            assert layer.dead == pytest.approx(dead)
        else:
            assert layer.dead is None


def test_the_random_state_of_the_caller_is_kept() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    cnngraph.probe("lenet", data="random")
    assert torch.equal(torch.rand(1), expected)


def test_weights_of_a_file_are_probed(tmp_path: Path) -> None:
    net = cnngraph.compile("lenet", {"activation": "relu"})
    with torch.no_grad():
        net.get_parameter("fc1.bias").fill_(-100)
    cnngraph.save_weights(net, tmp_path / "lenet.safetensors")
    found = cnngraph.probe("lenet", {"activation": "relu"}, weights=tmp_path / "lenet.safetensors")
    assert problems(found) == ["vanishing", "dead"]
    assert found.findings[1].text.startswith("100% of the units of 8 are zero")


def test_networks_that_do_not_classify_are_probed_with_random_values() -> None:
    found = cnngraph.probe(MAPS)
    assert found.data == "normal random values"
    assert [layer.path for layer in found.layers] == ["conv"]
    assert problems(found) == []
    with pytest.raises(CnngraphError, match="`maps` is no classifier of images"):
        cnngraph.probe(MAPS, data="digits")


def test_data_with_more_classes_than_the_network_are_refused() -> None:
    with pytest.raises(CnngraphError, match="digits has 10 classes, `lenet` 4: set num_classes"):
        cnngraph.probe("lenet", {"num_classes": 4}, data="digits")


def test_side_heads_are_part_of_the_loss() -> None:
    spec = MAPS.replace("inputs: {a: [2, 8, 8], b: [2, 8, 8]}", "input: [1, 8, 8]").replace(
        "  - add: [a, b]\n", "  - aux: {name: side, body: [flatten, {linear: {out_features: 5}}]}\n"
    )
    spec += "  - flatten\n  - linear: {name: fc, out_features: 5}\n"
    found = cnngraph.probe(spec)
    assert any(layer.gradient for layer in found.layers if layer.path.startswith("side"))


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs cnngraph[plots]")
    found = cnngraph.probe("lenet", data="random")
    found.save(tmp_path / "probe.svg")
    assert "<svg" in (tmp_path / "probe.svg").read_text()
    with pytest.raises(CnngraphError, match=r"a chart is a .png or .svg file, not probe.gif"):
        found.save("probe.gif")


def test_notebooks_show_the_verdict_and_the_table() -> None:
    html = cnngraph.probe("lenet", data="random")._repr_html_()
    assert "verdict: vanishing" in html
    assert "<td" in html


def test_the_command_prints_the_same_as_json() -> None:
    arguments = ["probe", "lenet", "--data", "random", "--set", "activation=relu"]
    run = CliRunner().invoke(app, [*arguments, "--format", "json"])
    data = json.loads(run.stdout)
    found = cnngraph.probe("lenet", {"activation": "relu"}, data="random")
    assert (data["loss"], data["findings"]) == (found.loss, [])
    assert [layer["std"] for layer in data["layers"]] == [layer.std for layer in found.layers]


@pytest.mark.slow
def test_random_data_need_no_library_of_training() -> None:
    script = (
        "import sys\n"
        "for name in ('sklearn', 'lightning_fabric', 'kornia', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "import cnngraph\n"
        "print(cnngraph.probe('lenet', data='random'))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "verdict: vanishing" in run.stdout
