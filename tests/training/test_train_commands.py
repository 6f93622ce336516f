"""`cnngraph train`, `evaluate` and `predict`: output, errors and exit codes."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import stripes
from PIL import Image
from typer.testing import CliRunner, Result

from cnngraph import training
from cnngraph.cli import app
from cnngraph.training import checkpoint


def run(*args: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec `tiny.yaml`, the data `stripes.npz`, and a finished run in `run`."""
    root = tmp_path_factory.mktemp("training")
    (root / "tiny.yaml").write_text(stripes.TINY)
    data = stripes.data(60, 15)
    arrays: dict[str, Any] = {}
    for part, images in (("train", data.train), ("test", data.val)):
        arrays[f"x_{part}"] = images.batch(range(len(images.labels)))[:, 0].numpy()
        arrays[f"y_{part}"] = images.labels.numpy()
    numpy.savez(root / "stripes.npz", **arrays)
    (root / "classes.txt").write_text("top\nmiddle\nbottom\n")
    done = train(root, root / "run", "--epochs", "4")
    assert done.exit_code == 0, done.output
    for index, name in enumerate(data.classes):
        image = data.val.batch([index])[0, 0].numpy()
        Image.fromarray(image).save(root / f"{name}.png")
    return root


def train(folder: Path, output: Path, *args: object) -> Result:
    spec, data = folder / "tiny.yaml", folder / "stripes.npz"
    return run("train", spec, "--data", data, "--batch-size", 4, "-o", output, *args)


def fails(result: Result, *texts: str) -> None:
    """The command ended with exit code 1 and one line on stderr."""
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    for text in texts:
        assert text in result.stderr


@pytest.fixture(autouse=True)
def no_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the run of `folder` has them: they take longer than the rest."""
    monkeypatch.setattr("cnngraph.training.report.write", lambda *arguments: None)


# train


def test_training_prints_the_plan_epochs_and_the_best(folder: Path, tmp_path: Path) -> None:
    result = train(folder, tmp_path / "run", "--epochs", "2", "--seed", "3", "--lr", "0.02")
    assert result.exit_code == 0, result.output
    out = result.stdout
    assert "60 images to train on, 15 to evaluate on, 3 classes" in out
    assert "2 epochs of 15 steps with batches of 4 images, float32 on cpu" in out
    assert "  2/2  " in out
    assert f"saved as {tmp_path / 'run'}/best.ckpt" in out
    recipe = checkpoint.load(tmp_path / "run").training["recipe"]
    assert "lr: 0.02" in recipe
    assert "seed: 3" in recipe


@pytest.mark.slow
def test_a_terminal_shows_a_progress_bar(folder: Path, tmp_path: Path) -> None:
    """On stderr, so that stdout can go to a file."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "cnngraph", "train", folder / "tiny.yaml", "--epochs", "2"]
    with (tmp_path / "out.txt").open("wb") as out:
        done = subprocess.Popen(
            [*map(str, command), "--data", folder / "stripes.npz", "-o", tmp_path / "run"],
            stdout=out,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(slave)
        shown = b""
        with suppress(OSError):  # the end of the terminal
            while part := os.read(master, 1 << 16):
                shown += part
    assert done.wait() == 0, shown
    text = shown.decode()
    assert re.search(r"loss \d\.\d{4}, accuracy [\d.]+%, [\d,]+ images/s", text), text
    assert "  2/2  " in (tmp_path / "out.txt").read_text()


def test_a_dry_run_prints_the_plan_only(folder: Path, tmp_path: Path) -> None:
    result = train(folder, tmp_path / "run", "--dry-run")
    assert result.exit_code == 0
    assert "the largest batch that fits is" in result.stdout
    assert not (tmp_path / "run").exists()


def test_show_batch_draws_what_the_network_will_see(folder: Path, tmp_path: Path) -> None:
    result = train(
        folder, tmp_path / "run", "--show-batch", tmp_path / "grid.png",
        "--override", "augment.cutmix=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "grid.png").size[0] > 100
    assert not (tmp_path / "run").exists()


def test_quiet_prints_nothing_and_json_prints_events(folder: Path, tmp_path: Path) -> None:
    assert train(folder, tmp_path / "quiet", "--epochs", "1", "--quiet").output == ""
    result = train(folder, tmp_path / "json", "--epochs", "1", "--format", "json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["plan", "epoch", "end"]
    assert events[-1]["val_accuracy"] == events[1]["val_accuracy"]


def test_ctrl_c_saves_and_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        training.Text,
        "on_step",
        lambda self, step: os.kill(os.getpid(), signal.SIGINT) if step.step == 7 else None,
    )
    stopped = train(folder, tmp_path / "run", "--epochs", "2")
    assert stopped.exit_code == 130
    assert f"`cnngraph train --resume {tmp_path / 'run'}` continues" in stopped.stderr
    monkeypatch.undo()
    resumed = run("train", "--resume", tmp_path / "run")
    assert resumed.exit_code == 0, resumed.output
    assert "continuing after step 7 of 30: epoch 1, batch 8" in resumed.stdout
    complete = run("train", folder / "tiny.yaml", "--resume", tmp_path / "run")
    assert "the run is complete: 2 epochs" in complete.stdout


def test_resuming_refuses_what_would_change_the_run(folder: Path, tmp_path: Path) -> None:
    assert run("train", "--resume", folder / "run", "--epochs", "9").exit_code == 2
    fails(run("train", "--resume", tmp_path), "contains no run to resume: it has no last.ckpt")
    other = tmp_path / "other.yaml"
    other.write_text(stripes.TINY.replace("dropout: 0.2", "dropout: 0.3"))
    fails(
        run("train", other, "--resume", folder / "run"),
        "is a checkpoint of `tiny`, not of",
        "or the spec was edited since",
    )
    fails(
        run("train", "--resume", folder / "run", "--data", "digits"),
        "digits has 10 classes, but `tiny` has 3 results",
    )


def test_mistakes_are_one_line_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    fails(train(folder, output, "--recipe", "digit"), "did you mean `digits`?")
    fails(train(folder, output, "--recipe", "resnet_cifar"), "is for resnet*_cifar, not for `tiny`")
    fails(train(folder, output, "--classes", 4), "has 3 classes, but `tiny` has 4 results")
    fails(train(folder, output, "--freeze", "convv"), "did you mean `conv`?")
    fails(train(folder, output, "--weights", "missing.pt"), "missing.pt: it does not exist")
    fails(train(folder, output, "--data", "photos"), "there is no data `photos`")
    wrong = train(folder, output, "--override", "optimizer.momentum=0.9")
    assert wrong.exit_code == 1
    assert "AdamW does not accept `momentum`" in wrong.stderr
    assert not output.exists()
    fails(train(folder, folder / "run"), "already contains a run")


def test_wrong_usage_is_exit_code_2(folder: Path, tmp_path: Path) -> None:
    unknown = train(folder, tmp_path, "--epochz", "3")
    assert unknown.exit_code == 2
    assert "--epochs" in unknown.stderr
    assert train(folder, tmp_path, "--batch-size", "many").exit_code == 2
    assert train(folder, tmp_path, "--override", "epochs").exit_code == 2
    assert run("train").exit_code == 2


# evaluate


def test_evaluation_needs_the_checkpoint_alone(folder: Path) -> None:
    result = run("evaluate", folder / "run")
    assert result.exit_code == 0, result.output
    assert "stripes.npz: 15 images, top-1 100.00%, top-5 100.00%" in result.stdout
    assert "middle" in result.stdout
    data = json.loads(run("evaluate", folder / "run", "--format", "json").stdout)
    assert data["per_class"] == {"top": 1.0, "middle": 1.0, "bottom": 1.0}
    assert data["confusion"] == [[5, 0, 0], [0, 5, 0], [0, 0, 5]]


def test_evaluation_draws_the_confusion_matrix(folder: Path, tmp_path: Path) -> None:
    assert run("evaluate", folder / "run", "--confusion", tmp_path / "a.png").exit_code == 0
    assert Image.open(tmp_path / "a.png").size[0] > 100


def test_evaluation_refuses_other_classes_and_other_files(folder: Path, tmp_path: Path) -> None:
    fails(
        run("evaluate", folder / "run", "--data", "digits"),
        "digits has other classes than",
        "(10 and 3): it has no `top`",
    )
    fails(run("evaluate", tmp_path), "contains no checkpoint (best.ckpt or last.ckpt)")
    (tmp_path / "a.ckpt").write_bytes((folder / "run" / "best.ckpt").read_bytes()[:-1000])
    fails(run("evaluate", tmp_path / "a.ckpt"), "a.ckpt is damaged")
    import cnngraph

    cnngraph.save_compiled(cnngraph.compile(stripes.TINY), tmp_path / "net.pt")
    fails(run("evaluate", tmp_path / "net.pt"), "but no checkpoint of `cnngraph train`")


# predict


def test_prediction_names_the_classes_of_files_and_folders(folder: Path) -> None:
    result = run("predict", folder / "run", folder / "top.png", "--top", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{folder / 'top.png'}: top ")
    assert len(result.stdout.split(", ")) == 2
    lines = run("predict", folder / "run", folder, "--format", "json").stdout.splitlines()
    found = {Path(row["image"]).stem: row["classes"] for row in map(json.loads, lines)}
    for name in ("top", "middle", "bottom"):
        assert found[name][0]["name"] == name
        assert sum(entry["probability"] for entry in found[name]) == pytest.approx(1, abs=1e-5)


def test_prediction_reads_stdin(folder: Path) -> None:
    data = (folder / "bottom.png").read_bytes()
    result = run("predict", folder / "run", "-", stdin=data)
    assert result.stdout.startswith("stdin: bottom "), result.output
    fails(run("predict", folder / "run", "-", stdin=b""), "stdin is empty")


def test_prediction_names_bad_files_or_leaves_them_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "png")
    (tmp_path / "b.png").write_bytes(buffer.getvalue())
    fails(run("predict", folder / "run", tmp_path), "a.png is empty: it has zero bytes")
    result = run("predict", folder / "run", tmp_path, "--skip-bad")
    assert len(result.stdout.splitlines()) == 1
    fails(run("predict", folder / "run", tmp_path / "c.png"), "c.png: it does not exist")


@pytest.mark.slow
def test_lenet_as_in_the_textbook_classifies_99_of_100_digits(tmp_path: Path) -> None:
    result = run("train", "lenet", "--recipe", "digits", "-o", tmp_path / "run", "--quiet")
    assert result.exit_code == 0, result.output
    assert training.evaluate(tmp_path / "run").top1 >= 0.99
