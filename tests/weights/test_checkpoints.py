"""Checkpoints of other tools, and networks with other input channels, devices and classes."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import cnngraph
from cnngraph import WeightsError, load_weights

SPEC = """\
cnngraph: 1
name: small
input: [3, 8, 8]
params: {num_classes: 4}
graph:
  - normalize: {mean: [0.5, 0.25, 0.125], std: [1, 2, 4]}
  - conv2d: {name: conv, out_channels: 6, kernel_size: 3}
  - batch_norm: {name: bn}
  - relu
  - conv2d: {name: last, out_channels: 6, kernel_size: 3}
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: "${num_classes}"}
"""
PLAIN = SPEC.replace("  - normalize: {mean: [0.5, 0.25, 0.125], std: [1, 2, 4]}\n", "")


def network(spec: str = PLAIN, **params: object) -> cnngraph.Network:
    return cnngraph.compile(spec, params=params)


def with_channels(count: int) -> cnngraph.Network:
    return network(PLAIN.replace("[3, 8, 8]", f"[{count}, 8, 8]"))


def assert_loaded(net: nn.Module, expected: dict[str, Tensor]) -> None:
    for key, value in net.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "a.b.module._orig_mod."])
def test_a_prefix_of_all_keys_is_removed(prefix: str) -> None:
    weights = network().state_dict()
    net = network()
    report = load_weights(net, {prefix + key: value for key, value in weights.items()})
    assert_loaded(net, weights)
    assert len(report.notes) == prefix.count(".")
    assert report.notes[0].startswith(f"removed the prefix `{prefix.split('.')[0]}.`")


def test_a_prefix_of_a_wrapper_is_removed_even_if_no_key_fits() -> None:
    renamed = {f"module.old_{key}": value for key, value in network().state_dict().items()}
    report = load_weights(network(), renamed, transfer=True)
    assert report.moved["conv.weight"] == "old_conv.weight"


def test_an_averaged_model_loads() -> None:
    net = network()
    averaged = AveragedModel(net)
    averaged.update_parameters(net)
    other = network()
    report = load_weights(other, averaged.state_dict())
    assert_loaded(other, net.state_dict())
    assert report.notes[0] == "ignored `n_averaged` of an averaged model"


@pytest.mark.parametrize(
    "key", ["state_dict_ema", "model_ema", "ema", "net", "params", "module", "weights_of_mine"]
)
def test_weights_are_found_in_an_entry(tmp_path: Path, key: str) -> None:
    weights = network().state_dict()
    moments = {0: {"exp_avg": torch.ones(2)}}
    contents = {"epoch": 3, key: weights, "optimizer": {"state": moments, "param_groups": []}}
    torch.save(contents, tmp_path / "net.pth")
    net = network()
    assert load_weights(net, tmp_path / "net.pth").notes == (f"read from `{key}` of the file",)
    assert_loaded(net, weights)


def test_of_several_entries_the_report_names_the_one_read_and_key_chooses(tmp_path: Path) -> None:
    raw, averaged = network().state_dict(), network().state_dict()
    path = tmp_path / "net.pth"
    torch.save({"state_dict_ema": averaged, "state_dict": raw}, path)
    net = network()
    assert load_weights(net, path).notes == (
        "read from `state_dict` of the file; key=... reads `state_dict_ema` instead",
    )
    assert_loaded(net, raw)
    assert load_weights(net, path, key="state_dict_ema").notes == (
        "read from `state_dict_ema` of the file",
    )
    assert_loaded(net, averaged)
    with pytest.raises(WeightsError, match="no weights under `ema`: its keys are state_dict_ema,"):
        load_weights(net, path, key="ema")
    torch.save({"teacher": averaged, "student": raw}, path)
    with pytest.raises(WeightsError, match='choose one with key="teacher" or key="student"'):
        load_weights(net, path)
    load_weights(net, path, key="student")
    assert_loaded(net, raw)


def test_a_tensor_beside_the_state_dict_does_not_hide_it(tmp_path: Path) -> None:
    weights = network().state_dict()
    torch.save({"epoch": 1, "state_dict": weights, "best_acc1": torch.ones(())}, tmp_path / "a.pt")
    net = network()
    load_weights(net, tmp_path / "a.pt")
    assert_loaded(net, weights)


def test_entries_in_entries_are_followed() -> None:
    weights = network().state_dict()
    net = network()
    load_weights(net, {"model": {"state_dict": weights, "version": 2}})  # pyright: ignore
    assert_loaded(net, weights)


def test_arguments_paths_and_numbers_beside_the_weights_are_harmless(tmp_path: Path) -> None:
    """As torchvision's and timm's training scripts write them."""
    weights = network().state_dict()
    args = argparse.Namespace(lr=0.1, data=tmp_path, device="cpu")
    beside = {"args": args, "metric": np.float64(0.5), "best": np.int64(3), "half": np.float32(1)}
    torch.save({"state_dict": weights, **beside}, tmp_path / "net.pth.tar")
    net = network()
    load_weights(net, tmp_path / "net.pth.tar")
    assert_loaded(net, weights)


def test_a_lightning_checkpoint_loads(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    inner = network()

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = inner
            self.save_hyperparameters({"lr": 0.1})

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    batches = [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))]
    data = torch.utils.data.DataLoader(batches, batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer = lightning.Trainer(
        max_epochs=1, default_root_dir=tmp_path, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Task(), data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    net = network()
    load_weights(net, tmp_path / "last.ckpt")
    assert_loaded(net, inner.state_dict())


# input channels


def test_a_grey_network_computes_what_the_file_computes_for_grey_images() -> None:
    file = network().eval()
    grey = with_channels(1).eval()
    report = load_weights(grey, file.state_dict(), in_channels="sum")
    assert report.notes == ("conv.weight: 3 input channels of the file summed to 1",)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), file(x.expand(-1, 3, -1, -1)))


def test_repeated_channels_are_those_of_the_file_in_turn_and_scaled() -> None:
    file = network().state_dict()
    net = with_channels(7)
    load_weights(net, file, in_channels="repeat")
    channels = [file["conv.weight"][:, index % 3] * 3 / 7 for index in range(7)]
    torch.testing.assert_close(net.state_dict()["conv.weight"], torch.stack(channels, 1))


def test_in_channels_must_suit_the_network() -> None:
    file = network().state_dict()
    with pytest.raises(WeightsError, match='has 7 input channels: use "repeat"'):
        load_weights(with_channels(7), file, in_channels="sum")
    with pytest.raises(WeightsError, match='has 1 input channel: use "sum"'):
        load_weights(with_channels(1), file, in_channels="repeat")
    with pytest.raises(WeightsError, match='in_channels is "sum" or "repeat", not \'mean\''):
        load_weights(with_channels(1), file, in_channels="mean")  # pyright: ignore
    assert load_weights(network(), file, in_channels="sum").notes == ()


def test_layers_after_the_first_are_not_adapted() -> None:
    wide = network(PLAIN.replace("name: conv, out_channels: 6", "name: conv, out_channels: 12"))
    with pytest.raises(WeightsError, match=r"last.weight: \(6, 12, 3, 3\) in the file"):
        load_weights(network(), wide.state_dict(), in_channels="repeat")


# hints


def hints(net: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    with pytest.raises(WeightsError) as caught:
        load_weights(net, weights)
    return [line.strip() for line in str(caught.value).splitlines() if "help:" in line]


def test_hints_name_the_remedy_for_the_mismatch() -> None:
    file = network().state_dict()
    skip = "help: load_weights(..., skip=[{}]) loads the rest, and leaves them unchanged"
    assert hints(with_channels(1), file) == [
        skip.format('"conv.weight"'),
        'help: load_weights(..., in_channels="sum") adapts conv.weight',
    ]
    assert hints(with_channels(4), file)[1:] == [
        'help: load_weights(..., in_channels="repeat") adapts conv.weight'
    ]
    assert hints(network(num_classes=9), file) == [
        skip.format('"fc"'),
        'help: compile with params={"num_classes": 4} to load the file, then call'
        " net.reset_classifier(9)",
    ]
    wide = network(PLAIN.replace("name: last, out_channels: 6", "name: last, out_channels: 12"))
    assert hints(wide, file)[-1] == (
        "help: load_weights(..., transfer=True) loads what an edit left unchanged"
    )
    assert not any("num_classes" in hint for hint in hints(wide, file))


# other networks


def test_constants_are_set_when_a_network_leaves_the_meta_device() -> None:
    file = network(SPEC).eval()
    with torch.device("meta"):
        net = network(SPEC).eval()
    net.to_empty(device="cpu")
    load_weights(net, file.state_dict())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(net(x), file(x))


@pytest.mark.parametrize("count", [np.int64(7), np.uint8(7), 7])
def test_reset_classifier_takes_any_integer(count: int, tmp_path: Path) -> None:
    net = network()
    net.reset_classifier(count)
    assert net.get_submodule("fc").out_features == 7
    cnngraph.save_compiled(net, tmp_path / "net.pt")
    assert cnngraph.load_compiled(tmp_path / "net.pt").get_submodule("fc").out_features == 7


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "3", None])
def test_reset_classifier_rejects_what_is_no_number_of_classes(count: object) -> None:
    with pytest.raises(cnngraph.CnngraphError, match="a classifier has at least one class"):
        network().reset_classifier(count)  # pyright: ignore[reportArgumentType]
