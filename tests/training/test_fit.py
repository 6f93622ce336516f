"""Runs: what they compute, report and refuse."""

from __future__ import annotations

import csv
import errno
import json
import re
import sys
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import pytest
import stripes
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import cnngraph
from cnngraph import training
from cnngraph.errors import CnngraphError
from cnngraph.options import Options
from cnngraph.training import checkpoint, loop
from cnngraph.training.augmentation import Targets, cross_entropy, measure, mixed
from cnngraph.training.data.images import TensorImages
from cnngraph.training.data.loader import Order
from cnngraph.training.listeners import EpochResult, JsonLines
from cnngraph.training.nonfinite import first_nonfinite
from cnngraph.training.planning import Plan

PLAIN = {"epochs": 2, "batch_size": 4}


def fit(**arguments: Any) -> training.Run:
    overrides = {**PLAIN, **arguments.pop("overrides", {})}
    spec = arguments.pop("spec", stripes.TINY)
    return training.fit(
        spec, arguments.pop("data", stripes.data()), overrides=overrides, **arguments
    )


def weights(run: training.Run) -> list[Any]:
    return [value.tolist() for value in run.network.state_dict().values()]


def test_a_run_learns() -> None:
    run = fit(overrides={"epochs": 4}, data=stripes.data(60, 30))
    assert run.best.val_accuracy == 1.0
    assert run.history[-1].train_loss < run.history[0].train_loss


def test_a_run_is_reproducible_and_depends_on_its_seed() -> None:
    first, second, other = fit(), fit(), fit(overrides={"seed": 1})
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_a_run_is_the_plain_loop() -> None:
    """The same steps in plain torch, without dropout and augmentation."""
    spec = stripes.TINY.replace("  - dropout: 0.2\n", "")
    data = stripes.data()
    optimizer = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0}
    overrides = {"optimizer": optimizer, "schedule": {"name": "constant"}, "epochs": 1}
    start = cnngraph.compile(spec)
    net = cnngraph.compile(spec)
    net.load_state_dict(start.state_dict())
    run = fit(spec=start, overrides=overrides)
    plain = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    norm = measure(data.train)
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in norm)
    for _, indices in Order(20, 4, 0):
        images = (data.train.batch(indices).float() / 255 - mean) / std
        F.cross_entropy(net(images), data.train.labels[indices]).backward()
        plain.step()
        plain.zero_grad()
    torch.testing.assert_close(run.network.state_dict(), net.state_dict())


def test_workers_change_nothing() -> None:
    overrides = {"epochs": 1, "augment": {"crop_padding": 1}}
    assert weights(fit(overrides=overrides, workers=1)) == weights(fit(overrides=overrides))


def test_accumulated_batches_are_one_step() -> None:
    """Without batch norm, two batches of 2 have the gradient of one of 4."""
    spec = stripes.TINY.replace("  - batch_norm: {name: bn}\n", "").replace(
        "  - dropout: 0.2\n", ""
    )
    torch.manual_seed(0)
    net = cnngraph.compile(spec)
    twin = cnngraph.compile(spec)
    twin.load_state_dict(net.state_dict())
    one = fit(spec=net, overrides={"batch_size": 4})
    two = fit(spec=twin, overrides={"batch_size": 2, "accumulate": 2})
    torch.testing.assert_close(one.network.state_dict(), two.network.state_dict())


def test_side_heads_train_with_their_weight() -> None:
    head = """
  - aux:
      name: side
      body: [flatten, {linear: {name: fc, out_features: "${num_classes}"}}]
  - max_pool2d: 2"""
    spec = stripes.TINY.replace("\n  - max_pool2d: 2", head)
    net = cnngraph.compile(spec, {"num_classes": 3})
    before = net.state_dict()["side.fc.weight"].clone()
    fit(spec=net, overrides={"aux_weight": 0.0, "epochs": 1, "optimizer.weight_decay": 0})
    assert torch.equal(net.state_dict()["side.fc.weight"], before)
    fit(spec=net, overrides={"aux_weight": 0.3, "epochs": 1})
    assert not torch.equal(net.state_dict()["side.fc.weight"], before)


def test_early_stopping_ends_a_run_that_does_not_improve() -> None:
    stopping = {"patience": 2, "min_delta": 100.0}
    run = fit(overrides={"epochs": 50, "early_stopping": stopping})
    assert len(run.history) == 3


def test_bfloat16_trains_and_float16_needs_a_gpu() -> None:
    assert fit(overrides={"precision": "bfloat16", "epochs": 1}).history
    if not torch.cuda.is_available():
        with pytest.raises(CnngraphError, match="`precision: float16` needs a GPU"):
            fit(overrides={"precision": "float16"})


def test_every_augmentation_runs_on_the_batch() -> None:
    spec = stripes.TINY.replace("[1, 8, 8]", "[3, 8, 8]")
    every = {
        "horizontal_flip": 0.5,
        "vertical_flip": 0.5,
        "random_resized_crop": {"scale": [0.5, 1]},
        "crop_padding": 1,
        "rotation": 10,
        "color_jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
        "random_erasing": 0.5,
        "mixup": 0.2,
        "cutmix": 1.0,
    }
    torch.manual_seed(0)
    images = torch.rand(20, 3, 8, 8)
    data = training.Data(
        "noise",
        TensorImages(images, torch.arange(20) % 3, cnngraph.TensorShape((3, 8, 8))),
        stripes_of_three(),
        ("a", "b", "c"),
    )
    run = fit(
        spec=spec, data=data, overrides={"augment": every, "label_smoothing": 0.1, "epochs": 1}
    )
    assert run.history[0].train_loss > 0


def stripes_of_three() -> Any:
    shape = cnngraph.TensorShape((3, 8, 8))
    grey = stripes.images(9)
    return TensorImages(grey.images, grey.labels, shape)


def test_grey_images_have_no_saturation() -> None:
    with pytest.raises(CnngraphError, match="`saturation` and `hue` change colours"):
        fit(overrides={"augment": {"color_jitter": {"hue": 0.1}}})


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0)])
def test_mixed_images_have_both_labels_by_their_share(mixup: float, cutmix: float) -> None:
    torch.manual_seed(1)
    labels = torch.arange(8)
    images = labels.view(8, 1, 1, 1).expand(8, 1, 16, 16).float()
    inputs, targets = mixed(images, labels, mixup, cutmix)
    expected = targets.share * targets.labels + (1 - targets.share) * targets.others
    torch.testing.assert_close(inputs.mean((1, 2, 3)), expected.float())
    logits = torch.randn(8, 8)
    loss = cross_entropy(logits, targets, 0.0)
    assert loss > 0
    assert cross_entropy(logits, Targets(labels, labels, 1.0), 0.0) == F.cross_entropy(
        logits, labels
    )


def test_the_normalisation_is_that_of_the_images() -> None:
    images = stripes.images(30)
    norm = measure(images)
    pixels = images.images.double() / 255
    assert norm.mean[0] == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert norm.std[0] == pytest.approx(pixels.std(unbiased=False).item(), rel=1e-6)


# the plan


def test_the_plan_says_what_a_run_needs() -> None:
    plan = training.plan(stripes.TINY, stripes.data(), overrides={"batch_size": 8}).plan
    assert (plan.images, plan.steps, plan.classes) == ((20, 9), 3, 3)
    assert plan.parameters == plan.trained == 243
    assert plan.memory > 8 * 8 * 8 * 4
    assert "3 steps with batches of 8 images, float32 on cpu" in str(plan)


def test_a_batch_that_cannot_fit_is_refused_with_the_largest_that_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def memory(batch_size: int) -> int:
        return training.plan(
            stripes.TINY, stripes.data(), overrides={"batch_size": batch_size}
        ).plan.memory

    budget = memory(7)
    assert budget < memory(8)
    monkeypatch.setattr("cnngraph.training.planning.available_memory", lambda device: budget)
    with pytest.raises(
        CnngraphError, match=r"the largest batch that fits is 7 \(--batch-size auto"
    ):
        fit(overrides={"batch_size": 8}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    setup = training.plan(stripes.TINY, stripes.data(), overrides={"batch_size": "auto"})
    assert setup.recipe.batch_size == setup.plan.batch_size == 7
    monkeypatch.setattr("cnngraph.training.planning.available_memory", lambda device: 1)
    with pytest.raises(CnngraphError, match="not even one image fits"):
        fit(overrides={"batch_size": "auto"})


def test_the_predicted_memory_of_a_step_is_what_torch_allocates() -> None:
    """With averages and the optimizer's state, after the first step."""
    overrides = {"batch_size": 64, "ema": 0.99}
    setup = training.plan("resnet20_cifar", "digits", overrides=overrides)
    run = loop.Loop(setup, None, training.Listener())
    run.engine.start_epoch(0)
    batches = iter(run.loader)

    def step() -> None:
        _, images, labels = next(batches)
        run._train_batch(images, labels)  # pyright: ignore[reportPrivateUsage]

    step()
    states = run.engine.optimizer.state.values()
    weights = [*run.engine.net.state_dict().values(), *run.engine.best_net.state_dict().values()]
    held = [*weights, *(value for state in states for value in state.values())]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events: Any = profiled.profiler.kineto_results.events()  # pyright: ignore
    changes = [(item.start_ns(), item.nbytes()) for item in events if item.name() == "[memory]"]
    peak = max(accumulate(size for _, size in sorted(changes)))
    measured = peak + sum(value.nbytes for value in held)
    assert setup.plan.memory == pytest.approx(measured, rel=0.02)


def test_a_memory_budget_is_for_the_batch_of_the_recipe() -> None:
    options = Options(memory="1GB")
    setup = training.plan(stripes.TINY, stripes.data(), options=options)
    assert setup.net.compilation.options.batch_size == 64
    with pytest.raises(CnngraphError, match="`memory=1GB` is a budget for a given batch"):
        fit(overrides={"batch_size": "auto"}, options=options)


# mistakes


def test_data_with_other_classes_is_refused() -> None:
    with pytest.raises(CnngraphError, match="stripes has 3 classes, but `tiny` has 5 results"):
        fit(params={"num_classes": 5})
    with pytest.raises(CnngraphError, match="stripes has 3 classes, but `tiny` has 4 results"):
        fit(classes=4)
    with pytest.raises(CnngraphError, match="the classes are 4, but num_classes=3"):
        fit(classes=4, params={"num_classes": 3})


def test_networks_that_are_no_classifiers_are_refused() -> None:
    spec = stripes.TINY.partition("  - max_pool2d: 2")[0]
    with pytest.raises(CnngraphError, match="`tiny` is no classifier: its result .* is 4x8x8"):
        fit(spec=spec)


def test_a_loss_that_is_not_finite_names_the_step_and_layer(tmp_path: Path) -> None:
    overrides = {"optimizer": {"name": "SGD", "lr": 1e30}, "schedule": {"name": "constant"}}
    spec = stripes.TINY.replace("  - batch_norm: {name: bn}\n", "")
    with pytest.raises(CnngraphError) as caught:
        fit(spec=spec, overrides=overrides, output=tmp_path / "run")
    message = str(caught.value)
    assert re.match(r"the loss is \w+ at step [23] \(epoch 1, batch [23]\): ", message), message
    assert "the output of `fc` is not finite" in message
    assert f"the last good checkpoint is {tmp_path / 'run' / 'last.ckpt'}" in message
    saved = checkpoint.load(tmp_path / "run" / "last.ckpt").network
    assert all(torch.isfinite(value).all() for value in saved.state_dict().values())


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"conv.weight": float("inf")}, "the weight `conv.weight` is not finite"),
        ({"conv.weight": 1e25, "fc.weight": 1e25}, "the output of `fc` is not finite"),
        ({"conv.bias": 1e20, "fc.weight": 0.0, "fc.bias": 0.0}, "finite, and only the loss"),
    ],
)
def test_the_first_value_that_is_not_finite_is_found(values: dict[str, float], found: str) -> None:
    net = cnngraph.compile(stripes.TINY.replace("  - batch_norm: {name: bn}\n", ""))
    for name, value in values.items():
        torch.nn.init.constant_(net.get_parameter(name), value)
    images = torch.rand(4, 1, 8, 8)
    assert found in first_nonfinite(net, lambda: net(images).sum())


def test_a_gradient_that_is_not_finite_is_caught_before_the_step(tmp_path: Path) -> None:
    net = cnngraph.compile(stripes.TINY)
    before = {name: value.clone() for name, value in net.named_parameters()}
    net.fc.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(CnngraphError, match="a gradient is not finite at step 1 .*`fc.weight`"):
        fit(spec=net)
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    fit(output=tmp_path, overrides={"epochs": 1})
    kept = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(CnngraphError, match="already contains a run: .*--resume"):
        fit(output=tmp_path)
    assert (tmp_path / "last.ckpt").read_bytes() == kept


def test_a_full_disk_is_reported_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    monkeypatch.setattr(loop.Loop, "run", lambda self: pytest.fail("it started"))
    with pytest.raises(CnngraphError, match="has 1.0 kB free; the run's checkpoints need"):
        fit(output=tmp_path / "run")


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytes] = []

    def save(contents: object, file: IO[bytes]) -> None:
        file.write(b"part")
        kept.append((tmp_path / "last.ckpt").read_bytes())
        raise OSError(errno.ENOSPC, "No space left on device")

    class FillsUp(training.Listener):
        def on_step(self, step: Any) -> None:
            monkeypatch.setattr("torch.save", save)

    with pytest.raises(CnngraphError, match="cannot write .*last.ckpt: No space left on device"):
        fit(output=tmp_path, listener=FillsUp())
    assert (tmp_path / "last.ckpt").read_bytes() == kept[0]
    assert not [*tmp_path.glob(".*")]


def test_a_folder_that_cannot_be_written_is_reported_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CnngraphError, match="cannot write to .*file"):
        fit(output=tmp_path / "file" / "run")


def test_a_missing_library_is_named_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(CnngraphError, match=r'not installed: pip install "cnngraph\[train\]"'):
        fit()


# files


def test_the_folder_of_a_run_has_its_figures_and_pictures(tmp_path: Path) -> None:
    run = fit(output=tmp_path, data=stripes.data(20, 9))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [float(row["val_accuracy"]) for row in rows] == [
        result.val_accuracy for result in run.history
    ]
    names = {file.name for file in tmp_path.iterdir()}
    assert {"last.ckpt", "best.ckpt", "curves.png", "confusion.png", "tensorboard"} <= names
    assert run.best.val_accuracy == 1.0 or "mistakes.png" in names


def test_checkpoints_are_files_for_load_compiled_and_load_weights(tmp_path: Path) -> None:
    run = fit(output=tmp_path)
    net = cnngraph.load_compiled(tmp_path / "last.ckpt")
    assert [value.tolist() for value in net.state_dict().values()] == weights(run)
    twin = cnngraph.compile(stripes.TINY)
    assert len(cnngraph.load_weights(twin, tmp_path / "last.ckpt").kept) == len(net.state_dict())


def test_lines_of_json_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    fit(listener=JsonLines())
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["plan", "epoch", "epoch"]
    assert events[1]["epoch"] == 1


def test_listeners_hear_of_every_step() -> None:
    heard: list[Any] = []

    class Records(training.Listener):
        def on_plan(self, plan: Plan, notes: str = "") -> None:
            heard.append(plan.steps)

        def on_step(self, step: Any) -> None:
            heard.append(step.step)

        def on_epoch(self, result: EpochResult, epochs: int, best: bool) -> None:
            heard.append(("epoch", result.epoch))

    fit(listener=Records(), overrides={"epochs": 1})
    assert heard == [5, 1, 2, 3, 4, 5, ("epoch", 1)]
