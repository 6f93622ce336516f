"""Compiled networks in files: what comes back, and clear errors for the rest."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import SPECS
from torch import nn

import cnngraph
from cnngraph.weights import compiled as artifact
from cnngraph.weights.compiled import load_compiled, save_compiled

TEXT = """\
cnngraph: 1
name: small
input: [3, 8, 8]
params: {classes: 4, widths: [8, 16], act: relu, rate: 0.5, bias: true}
graph:
  - conv2d: {name: conv, out_channels: "${widths[0]}", kernel_size: 3, bias: "${bias}"}
  - batch_norm: {name: bn}
  - ${act}
  - conv2d: {name: last, out_channels: "${widths[1]}", kernel_size: 3}
  - global_avg_pool2d
  - flatten
  - dropout: ${rate}
  - linear: {name: fc, out_features: "${classes}"}
"""


def step(network: nn.Module) -> float:
    """One training step, which changes weights and running statistics."""
    network.train()
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(network(torch.randn(3, 3, 8, 8)), torch.arange(3))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_loaded_network_computes_the_same_and_continues_training(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(TEXT.replace("rate: 0.5", "rate: 0.0"))
    network = cnngraph.compile(tmp_path / "net.yaml", params={"classes": 6})
    step(network)
    save_compiled(network, tmp_path / "net.pt")
    loaded = load_compiled(tmp_path / "net.pt")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded.eval()(x), network.eval()(x))
    assert loaded.state_dict()["bn.num_batches_tracked"] == 1
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    before = {name: value.detach().clone() for name, value in loaded.named_parameters()}
    assert step(loaded) == step(network)
    moved = {
        name for name, value in loaded.named_parameters() if not torch.equal(before[name], value)
    }
    assert moved >= {"conv.weight", "bn.weight", "last.weight", "fc.weight", "fc.bias"}


def test_imports_come_along_and_the_original_files_are_not_needed(tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    (folder / "blocks").mkdir(parents=True)
    for name in ("googlenet.yaml", "blocks/conv.yaml", "blocks/normalization.yaml"):
        (folder / name).write_text((SPECS / name).read_text())
    (folder / "variant.yaml").write_text(
        "cnngraph: 1\nextends: googlenet.yaml\nparams: {num_classes: 5}\n"
    )
    network = cnngraph.compile(folder / "variant.yaml")
    save_compiled(network, tmp_path / "net.pt")
    for path in sorted(folder.rglob("*.yaml")):
        path.unlink()
    (tmp_path / "link.pt").symlink_to(tmp_path / "net.pt")
    loaded = load_compiled(tmp_path / "link.pt")
    assert loaded.fc.out_features == 5
    second = tmp_path / "second.pt"
    save_compiled(loaded, second)
    assert torch.equal(load_compiled(second).fc.weight, network.fc.weight)
    stored = torch.load(second, weights_only=True)
    assert stored["main"] == "variant.yaml"
    assert set(stored["files"]) == {
        "variant.yaml",
        "googlenet.yaml",
        "blocks/conv.yaml",
        "blocks/normalization.yaml",
    }


@pytest.mark.parametrize("widths", [[8, 16], (4, 12)])
def test_specs_as_text_and_params_of_every_type_are_saved(tmp_path: Path, widths: object) -> None:
    params = {
        "classes": 3,
        "widths": widths,
        "act": "hardswish",
        "rate": 0.25,
        "bias": False,
        "any": [1, ["a", None]],
    }
    text = TEXT.replace("bias: true}", "bias: true, any: ~}")
    network = cnngraph.compile(text, params=params)
    save_compiled(network, tmp_path / "net.pt")
    loaded = load_compiled(tmp_path / "net.pt")
    assert loaded.state_dict().keys() == network.state_dict().keys()
    found = loaded.compilation.params
    assert found == {**params, "widths": tuple(widths), "any": (1, ("a", None))}  # pyright: ignore[reportArgumentType]
    assert {name: type(value) for name, value in found.items() if name != "widths"} == {
        "classes": int, "act": str, "rate": float, "bias": bool, "any": tuple,
    }  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(loaded.eval()(x), network.eval()(x))


def test_dtypes_and_backends_survive_and_the_random_state_is_kept(tmp_path: Path) -> None:
    network = cnngraph.compile(TEXT, backend="eager").double()
    save_compiled(network, tmp_path / "net.pt")
    state = torch.random.get_rng_state()
    loaded = load_compiled(tmp_path / "net.pt")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.fc.weight.dtype == torch.float64
    assert loaded.fc.weight.requires_grad
    assert loaded.compilation.options.backend == "eager"
    fused = load_compiled(tmp_path / "net.pt", backend="fused")
    assert fused.compilation.options.backend == "fused"
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(fused.eval()(x), loaded.eval()(x))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("artifact") / "net.pt"
    save_compiled(cnngraph.compile(TEXT), path)
    return path.read_bytes()


def test_a_truncated_file_is_an_error(tmp_path: Path, saved: bytes) -> None:
    path = tmp_path / "cut.pt"
    for length in [*range(8), *range(8, len(saved), len(saved) // 60), len(saved) - 1]:
        path.write_bytes(saved[:length])
        with pytest.raises(cnngraph.CnngraphError, match="cut.pt is damaged"):
            load_compiled(path)


def test_damaged_file_raises_a_clear_error_or_loads_correctly(tmp_path: Path, saved: bytes) -> None:
    """Bytes of padding or dates may change unnoticed; weights and text may not."""
    path = tmp_path / "damaged.pt"
    expected = torch.load(_written(tmp_path / "whole.pt", saved), weights_only=True)
    for place in range(0, len(saved), len(saved) // 150):
        path.write_bytes(saved[:place] + bytes([saved[place] ^ 0xFF]) + saved[place + 1 :])
        try:
            loaded = load_compiled(path)
        except cnngraph.CnngraphError:
            continue
        for key, value in expected["state_dict"].items():
            assert torch.equal(loaded.state_dict()[key], value), (place, key)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


class Malice:
    def __reduce__(self):
        return os.mkdir, ("malice",)


def test_a_pickle_with_code_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": artifact.MARK, "version": artifact.FORMAT, "files": Malice()}, "net.pt")
    with pytest.raises(
        cnngraph.CnngraphError,
        match="is rejected: it contains posix.mkdir, and reading it could run code",
    ):
        load_compiled("net.pt")
    assert not Path("malice").exists()


def test_files_of_another_kind_or_format_are_errors(tmp_path: Path, saved: bytes) -> None:
    whole = torch.load(_written(tmp_path / "whole.pt", saved), weights_only=True)
    path = tmp_path / "other.pt"

    def refusal(contents: object) -> str:
        torch.save(contents, path)
        with pytest.raises(cnngraph.CnngraphError) as caught:
            load_compiled(path)
        return str(caught.value).replace(str(path), "other.pt")

    version = cnngraph.__version__
    assert refusal({**whole, "version": artifact.FORMAT + 1, "cnngraph": "9.1"}) == (
        f"other.pt was written by cnngraph 9.1, in format {artifact.FORMAT + 1}; this is cnngraph {version}, which reads format {artifact.FORMAT}:"
        " install a newer cnngraph to read it"
    )
    assert (
        refusal(whole["state_dict"])
        == "other.pt is a PyTorch file, but not a network compiled by cnngraph"
    )
    assert (
        refusal({key: whole[key] for key in whole if key != "params"})
        == "other.pt is damaged: it has no `params`"
    )
    assert refusal({**whole, "state_dict": {1: torch.ones(1)}}).startswith(
        "other.pt is damaged: its `state_dict`"
    )
    assert refusal({**whole, "params": {1: 2}}).startswith("other.pt is damaged: its `params`")
    assert (
        refusal({**whole, "main": "elsewhere.yaml"}) == "other.pt is damaged: its spec is missing"
    )
    assert "the weights" in refusal({**whole, "state_dict": {}}) or "weights do not fit" in refusal(
        {**whole, "state_dict": {}}
    )
    assert "there is no backend `tpu`" in refusal({**whole, "backend": "tpu"})
    assert "there is no pass `tpu`" in refusal({**whole, "disable_passes": ["tpu"]})
    text = whole["files"]["spec.yaml"].replace("flatten", "flatten_of_a_plugin")
    assert "other.pt/spec.yaml:11:5" in refusal({**whole, "files": {"spec.yaml": text}})
    path.write_text("not a network")
    with pytest.raises(cnngraph.CnngraphError, match="is not a network compiled by cnngraph"):
        load_compiled(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(cnngraph.CnngraphError, match="is damaged"):
        load_compiled(path)


def test_imports_open_no_other_file(tmp_path: Path, saved: bytes) -> None:
    contents = torch.load(_written(tmp_path / "whole.pt", saved), weights_only=True)
    (tmp_path / "secret.yaml").write_text("cnngraph: 1\nblocks: {b: {body: [relu]}}\n")
    text = contents["files"]["spec.yaml"].replace("\ngraph:", "\nimports: [../secret.yaml]\ngraph:")
    torch.save({**contents, "files": {"spec.yaml": text}}, tmp_path / "net.pt")
    with pytest.raises(cnngraph.SpecError, match="E111"):
        load_compiled(tmp_path / "net.pt")


def test_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    with pytest.raises(cnngraph.CnngraphError, match=r"missing\.pt: it does not exist"):
        load_compiled(tmp_path / "missing.pt")
    with pytest.raises(cnngraph.CnngraphError, match="it is a folder"):
        load_compiled(tmp_path)


def test_networks_that_do_not_fit_their_spec_are_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    network = cnngraph.compile(TEXT)
    network.fc = nn.Linear(16, 7)
    with pytest.raises(
        cnngraph.CnngraphError, match=r"`fc.weight` has the shape 7x16, in the spec 4x16"
    ):
        save_compiled(network, path)
    network.fc = nn.Linear(16, 4, bias=False)
    with pytest.raises(cnngraph.CnngraphError, match=r"`fc.bias` is missing"):
        save_compiled(network, path)
    with pytest.raises(cnngraph.CnngraphError, match="this Sequential: it was not made by"):
        save_compiled(nn.Sequential(nn.ReLU()), path)
    network = cnngraph.compile(TEXT, params={"classes": 4})
    network.compilation.params["classes"] = object()
    with pytest.raises(
        cnngraph.CnngraphError, match="its param `classes` contains a value of type object"
    ):
        save_compiled(network, path)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_to_are_errors(tmp_path: Path) -> None:
    network = cnngraph.compile(TEXT)
    with pytest.raises(cnngraph.CnngraphError, match=r"the folder .*nowhere does not exist"):
        save_compiled(network, tmp_path / "nowhere" / "net.pt")
    with pytest.raises(cnngraph.CnngraphError, match="it is a folder"):
        save_compiled(network, tmp_path)
    with pytest.raises(cnngraph.CnngraphError, match="not an ordinary file"):
        save_compiled(network, os.devnull)


def test_a_network_with_many_nodes_and_few_weights_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "_SMALL_NETWORK", 20)
    text = TEXT_OF_SHARES.format(times=100)
    save_compiled(cnngraph.compile(text), tmp_path / "net.pt")
    assert len(load_compiled(tmp_path / "net.pt").compilation.graph.nodes) == 101
    monkeypatch.setattr(artifact, "_LEAST_BYTES_OF_NODE", 1000)
    with pytest.raises(cnngraph.CnngraphError, match="but its network 101 nodes"):
        load_compiled(tmp_path / "net.pt")


TEXT_OF_SHARES = """
cnngraph: 1
name: shares
input: [1, 4, 4]
graph:
  - conv2d: {{name: conv, out_channels: 1, kernel_size: 1}}
  - repeat: {{times: {times}, body: {{share: conv}}}}
"""


def test_a_network_with_constants_outside_its_state_dict_is_saved(tmp_path: Path) -> None:
    text = "cnngraph: 1\nname: net\ninput: [3, 4, 4]\ngraph:\n- normalize: {mean: [0, 1, 2], std: [1, 2, 3]}\n- relu\n"
    network = cnngraph.compile(text)
    save_compiled(network, tmp_path / "net.pt")
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(load_compiled(tmp_path / "net.pt")(x), network(x))


def test_a_network_for_inference_is_not_saved(tmp_path: Path) -> None:
    network = cnngraph.compile(TEXT).eval().for_inference()
    with pytest.raises(cnngraph.CnngraphError, match="save the network it was made from"):
        save_compiled(network, tmp_path / "net.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["net.safetensors", "net.yaml", "net.YML", "net.json"])
def test_endings_of_other_formats_are_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(cnngraph.CnngraphError, match=r"\(use .pt\)"):
        save_compiled(cnngraph.compile(TEXT), tmp_path / name)
    assert not list(tmp_path.iterdir())
