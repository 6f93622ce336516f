"""Fine-tuning: weights of other files, frozen parts, and parts that are trained later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import stripes
import torch

import cnngraph
from cnngraph import training
from cnngraph.errors import CnngraphError

DEEPER = """
cnngraph: 1
name: deeper
input: [3, 8, 8]
params: {num_classes: 7}
graph:
  - conv2d: {name: conv1, out_channels: 4, kernel_size: 3, padding: 1}
  - batch_norm: {name: bn1}
  - relu
  - conv2d: {name: conv2, out_channels: 4, kernel_size: 3, padding: 1}
  - batch_norm: {name: bn2}
  - relu
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: "${num_classes}"}
"""
ONE_CHANNEL = DEEPER.replace("[3, 8, 8]", "[1, 8, 8]")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    net = cnngraph.compile(DEEPER)
    net(torch.randn(16, 3, 8, 8))  # statistics that differ from the initial ones
    cnngraph.save_weights(net, tmp_path / "published.safetensors")
    return tmp_path / "published.safetensors"


def tensors(path: Path) -> dict[str, torch.Tensor]:
    net = cnngraph.compile(DEEPER)
    cnngraph.load_weights(net, path)
    return net.state_dict()


def fit(spec: str = DEEPER, **arguments: Any) -> training.Run:
    overrides = {"epochs": 1, "batch_size": 4, **arguments.pop("overrides", {})}
    return training.fit(spec, colour(spec), overrides=overrides, **arguments)


def colour(spec: str) -> training.Data:
    shape = cnngraph.TensorShape((1 if spec == ONE_CHANNEL else 3, 8, 8))
    from cnngraph.training.data.images import TensorImages

    parts = [
        TensorImages(part.images, part.labels, shape)
        for part in (stripes.images(20), stripes.images(9, 1))
    ]
    return training.Data("stripes", parts[0], parts[1], ("top", "middle", "bottom"))


def test_frozen_parts_keep_their_weights_and_statistics(published: Path) -> None:
    run = fit(weights=published, overrides={"freeze": ["conv1", "bn1"]})
    before, after = tensors(published), run.network.state_dict()
    for name in ("conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked"):
        assert torch.equal(after[name], before[name]), name
    for name in ("conv2.weight", "bn2.running_mean"):
        assert not torch.equal(after[name], before[name]), name
    assert after["fc.weight"].shape == (3, 4)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_parts_are_unfrozen_at_their_epoch(optimizer: str, published: Path) -> None:
    seen: list[bool] = []

    class Watches(training.Listener):
        def on_epoch(self, *arguments: Any) -> None:
            seen.append(
                torch.equal(setup.net.state_dict()["bn1.running_mean"], before["bn1.running_mean"])
            )

    overrides = {
        "epochs": 3,
        "batch_size": 4,
        "optimizer": {"name": optimizer, "lr": 0.01}
        | ({"momentum": 0.9} if optimizer == "SGD" else {}),
        "freeze": ["conv1", "bn1"],
        "unfreeze": {"2": "bn1"},
    }
    before = tensors(published)
    setup = training.plan(DEEPER, colour(DEEPER), overrides=overrides, weights=published)
    training.train(setup, listener=Watches())
    assert seen == [True, True, False]
    after = setup.net.state_dict()
    assert torch.equal(after["conv1.weight"], before["conv1.weight"])
    assert not torch.equal(after["bn1.weight"], before["bn1.weight"])


def test_other_input_channels_adapt_the_first_convolution(published: Path) -> None:
    setup = training.plan(ONE_CHANNEL, colour(ONE_CHANNEL), weights=published)
    summed = tensors(published)["conv1.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(setup.net.state_dict()["conv1.weight"], summed)
    assert "3 input channels of the file summed to 1" in setup.notes
    assert "skipped" in setup.notes
    assert "fc" in setup.notes


def test_the_plan_counts_frozen_parameters(published: Path) -> None:
    setup = training.plan(DEEPER, colour(DEEPER), overrides={"freeze": "conv*"}, weights=published)
    frozen = sum(setup.net.get_submodule(name).weight.numel() + 4 for name in ("conv1", "conv2"))
    assert setup.plan.parameters - setup.plan.trained == frozen
    assert f"{frozen} of them frozen" in str(setup.plan)


def test_weights_of_the_same_classes_load_completely(published: Path) -> None:
    net = cnngraph.compile(DEEPER)
    from cnngraph.training.fine_tuning import load_pretrained

    assert "16 of 16 tensors loaded" in load_pretrained(net, published)


def test_a_checkpoint_of_a_run_is_weights_for_other_classes(tmp_path: Path) -> None:
    first = fit(output=tmp_path / "run", overrides={"ema": 0.5})
    two = training.Data("two", stripes.images(20, classes=2), stripes.images(8, 1, 2), ("a", "b"))
    setup = training.plan(ONE_CHANNEL, two, weights=tmp_path / "run" / "last.ckpt")
    trained, loaded = first.network.state_dict(), setup.net.state_dict()
    assert torch.equal(loaded["conv2.weight"], trained["conv2.weight"])
    assert loaded["fc.weight"].shape == (2, 4)


def test_mistakes_are_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(CnngraphError, match="`convv1` matches nothing; did you mean `conv1`"):
        fit(weights=published, overrides={"freeze": "convv1"})
    with pytest.raises(CnngraphError, match="missing.pt: it does not exist"):
        fit(weights=tmp_path / "missing.pt")
    with pytest.raises(CnngraphError, match="published.safetensors does not fit tiny"):
        training.fit(stripes.TINY, stripes.data(), weights=published)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ({"freeze": "*"}, "epoch 1 trains nothing"),
        ({"freeze": "*", "unfreeze": {"1": "fc"}}, "epoch 1 trains nothing"),
        ({"freeze": "*", "unfreeze": {"0": "fc", "9": "convv1"}}, "did you mean `conv1`"),
    ],
)
def test_wrong_patterns_of_any_epoch_are_found_by_the_plan(
    frozen: dict[str, Any], message: str
) -> None:
    with pytest.raises(CnngraphError, match=message):
        training.plan(ONE_CHANNEL, stripes.data(), params={"num_classes": 3}, overrides=frozen)


def test_the_plan_keeps_what_the_caller_froze() -> None:
    net = cnngraph.compile(ONE_CHANNEL, params={"num_classes": 3})
    cnngraph.freeze(net, "bn2")
    training.plan(net, stripes.data(), overrides={"freeze": "conv1", "unfreeze": {"3": "*"}})
    trained = {name for name, value in net.named_parameters() if value.requires_grad}
    assert trained == {
        "bn1.weight",
        "bn1.bias",
        "conv2.weight",
        "conv2.bias",
        "fc.weight",
        "fc.bias",
    }
