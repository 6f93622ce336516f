"""Starts a run, kills it without warning, resumes it until it ends, and prints its digest as JSON.

A process of its own, which computes nothing itself: its children are forks of it, and start
quickly.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stripes
import torch

from cnngraph import training
from cnngraph.training import checkpoint, extras, report

extras.require_all()
extras.require("torch.utils.tensorboard")
report.write = lambda *arguments: None  # pictures take longer than the run

OVERRIDES = {
    "epochs": 4,
    "batch_size": 4,
    "ema": 0.9,
    "augment": {"horizontal_flip": 0.5, "crop_padding": 1, "mixup": 0.2},
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_save(place: str, number: int) -> None:
    """Makes this process die at a place of its save of this number."""
    saves = iter(range(10**6))
    write = checkpoint.atomic_write

    def dying(path: Any, fill: Callable[[Path], object], **options: Any) -> None:
        if next(saves) != number:
            write(path, fill, **options)
            return
        if place == "half":

            def half(file: Path) -> None:
                fill(file)
                os.truncate(file, file.stat().st_size // 2)
                die()

            write(path, half, **options)
        if place == "before the name":
            os.replace = lambda *names: die()  # type: ignore
        write(path, fill, **options)
        die()

    checkpoint.atomic_write = dying
    if place == "best":
        checkpoint.atomic_write = write
        checkpoint.keep_as_best = lambda last: die()


def run(folder: Path) -> None:
    torch.set_num_threads(1)
    if (folder / checkpoint.LAST).exists():
        training.resume(folder, data=stripes.data(), save_every=2)
    else:
        data = stripes.data()
        training.fit(stripes.TINY, data, overrides=OVERRIDES, output=folder, save_every=2)


def forked(task: Callable[[], None], seconds: float | None = None) -> bool:
    """Runs a task in a fork, killed after some seconds. Returns whether it ended by itself."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the run failed"
    return os.WIFEXITED(status)


def digest(folder: Path) -> str:
    """Of everything in the last and the best checkpoint that a run determines."""
    found = hashlib.sha256()
    for name in (checkpoint.LAST, checkpoint.BEST):
        saved = checkpoint.load(folder / name)
        state = saved.training
        for row in state["progress"]["history"]:
            shown = {key: value for key, value in row.items() if "second" not in key}
            found.update(repr(shown).encode())
        tensors = [*saved.network.state_dict().values(), *state["average"]["weights"].values()]
        for entry in state["optimizer"]["state"].values():
            tensors += entry.values()
        for tensor in tensors:
            found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    root, seed, trials = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    start = time.perf_counter()
    forked(lambda: run(root / "unbroken"))
    took = time.perf_counter() - start
    digests, kills = {"unbroken": digest(root / "unbroken")}, 0
    for trial in range(trials):
        folder = root / f"random{trial}"
        while not forked(lambda folder=folder: run(folder), chance.uniform(0, 0.8 * took)):
            kills += 1
        digests[folder.name] = digest(folder)
    for place in ("half", "before the name", "after the name", "best"):
        folder = root / place.replace(" ", "_")

        def dying(place: str = place, folder: Path = folder) -> None:
            kill_in_save(place, chance.randrange(1, 8))
            run(folder)

        assert not forked(dying), f"not killed: {place}"
        kills += 1
        assert forked(lambda folder=folder: run(folder))
        digests[folder.name] = digest(folder)
        left = [file.name for file in folder.glob(".*")]
        assert not left, left
    print(json.dumps({"digests": digests, "kills": kills}))


if __name__ == "__main__":
    main()
