"""8 threads that train, compile, check and save at the same time get what one thread gets."""

from __future__ import annotations

import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import torch

import cnngraph

from .networks import SPEC, Training

THREADS, ROUNDS, STEPS = 8, 5, 20
WRONG = SPEC.replace("out_features: 10", "out_features: ten")


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    state = cnngraph.compile(SPEC).state_dict()
    seeds = range(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        expected = [work(state, seed, Path(folder) / "net.pt") for seed in seeds]
        filters = list(warnings.filters)
        for _ in range(ROUNDS):
            start = Barrier(THREADS)
            path = Path(folder) / "net.pt"  # one file for all of them

            def together(seed: int, start: Barrier = start, path: Path = path) -> list[object]:
                start.wait()
                return work(state, seed, path)

            with ThreadPoolExecutor(THREADS) as pool:
                assert list(pool.map(together, seeds)) == expected
            assert [file.name for file in Path(folder).iterdir()] == ["net.pt"]
        assert list(warnings.filters) == filters
    print(f"{THREADS} threads, {ROUNDS} times {STEPS} steps each: bit for bit as in one thread")


def work(state: dict[str, torch.Tensor], seed: int, path: Path) -> list[object]:
    """The losses of a training, and what `check` says of two specs."""
    training = Training(seed=seed)
    training.network.load_state_dict(state)
    seen: list[object] = []
    for _ in range(STEPS):
        seen += [training.step(), str(cnngraph.check(WRONG)), str(cnngraph.check(SPEC).graph)]
    cnngraph.save_compiled(training.network, path)
    keys = list(cnngraph.load_compiled(path).state_dict())
    with torch.no_grad():
        inference = training.network.eval().for_inference()
        return [*seen, keys, inference(training.batch()[0]).sum().item()]
