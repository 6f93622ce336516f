"""A run that is interrupted and resumed ends in the weights of an unbroken one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripes

from cnngraph import training
from cnngraph.training import checkpoint
from cnngraph.training.listeners import Step

OVERRIDES = {
    "epochs": 3,
    "batch_size": 4,
    "ema": 0.9,
    "augment": {"horizontal_flip": 0.5, "crop_padding": 1, "mixup": 0.2, "cutmix": 1.0},
}


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnngraph.training.report.write", lambda *arguments: None)
        yield


class Stops(training.Listener):
    """Interrupts a run after a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: Step) -> None:
        if step.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def start(folder: Path, **arguments: Any) -> training.Run:
    overrides = {**OVERRIDES, **arguments.pop("overrides", {})}
    return training.fit(
        stripes.TINY, stripes.data(), overrides=overrides, output=folder, **arguments
    )


def bits(folder: Path) -> dict[str, Any]:
    """Everything of the last checkpoint that later steps depend on, in comparable form."""
    saved = checkpoint.load(folder / checkpoint.LAST)
    state = saved.training
    history = [
        {key: value for key, value in row.items() if "second" not in key}
        for row in state["progress"]["history"]
    ]
    tensors = {**saved.network.state_dict(), **state["average"]["weights"]}
    optimizer = [
        value for entry in state["optimizer"]["state"].values() for value in entry.values()
    ]
    return {
        "history": history,
        "tensors": [value.tolist() for value in (*tensors.values(), *optimizer)],
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    start(folder)
    return bits(folder)


@pytest.mark.parametrize("step", [1, 5, 7, 15])
def test_an_interrupted_run_ends_in_the_same_weights(
    tmp_path: Path, unbroken: dict[str, Any], step: int
) -> None:
    with pytest.raises(training.Interrupted, match="--resume"):
        start(tmp_path / "run", listener=Stops(step))
    training.resume(tmp_path / "run", data=stripes.data())
    assert bits(tmp_path / "run") == unbroken


def test_accumulated_batches_resume_at_a_step(tmp_path: Path) -> None:
    overrides = {"accumulate": 2, "batch_size": 3}  # 7 batches an epoch: the last step has one
    start(tmp_path / "unbroken", overrides=overrides)
    with pytest.raises(training.Interrupted):
        start(tmp_path / "run", overrides=overrides, listener=Stops(6))
    training.resume(tmp_path / "run", data=stripes.data())
    assert bits(tmp_path / "run") == bits(tmp_path / "unbroken")


def test_a_finished_run_stays_the_same(tmp_path: Path, unbroken: dict[str, Any]) -> None:
    start(tmp_path / "run")
    training.resume(tmp_path / "run", data=stripes.data())
    assert bits(tmp_path / "run") == unbroken


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    """At random moments, and at each place of a save."""
    driver = Path(__file__).with_name("kill_driver.py")
    seed = random.SystemRandom().randrange(10**6)
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), str(seed), "6"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 4
    assert set(found["digests"].values()) == {found["digests"]["unbroken"]}, f"seed {seed}"
