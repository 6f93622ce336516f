"""kill -9 at 100 random moments of a process that saves: a whole file remains each time.

The process writes three kinds of files one after another, without a pause.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

import cnngraph

KILLS = 100
FILES = ("net.pt", "weights.pt", "weights.safetensors")
SPEC = """\
cnngraph: 1
name: net
input: [64, 8, 8]
graph: [conv2d: {name: conv, out_channels: 512, kernel_size: 3}]
"""


def main() -> None:
    torch.set_num_threads(1)
    chooser = random.Random(0)
    processes = multiprocessing.get_context("fork")
    unfinished = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(KILLS):
            saved = processes.Event()
            process = processes.Process(target=save_forever, args=(folder, saved))
            process.start()
            saved.wait()
            time.sleep(chooser.uniform(0, 0.2))
            process.kill()
            process.join()
            assert process.exitcode == -9
            unfinished += any(file.suffix == ".tmp" for file in folder.iterdir())
            for file in FILES:
                read(folder / file)
        save_all(cnngraph.compile(SPEC), folder)
        left = sorted(file.name for file in folder.iterdir())
    print(
        f"{KILLS} kills, {unfinished} of them left an unfinished file, which the next save removed"
    )
    assert left == sorted(FILES), left


def save_forever(folder: Path, saved: Event) -> None:
    network = cnngraph.compile(SPEC)
    for number in range(10**9):
        for parameter in network.parameters():
            torch.nn.init.constant_(parameter, number)
        save_all(network, folder)
        saved.set()


def save_all(network: cnngraph.Network, folder: Path) -> None:
    cnngraph.save_compiled(network, folder / "net.pt")
    for name in FILES[1:]:
        cnngraph.save_weights(network, folder / name)


def read(path: Path) -> None:
    """Reads a file, which must have the weights of one save."""
    if path.name == "net.pt":
        network = cnngraph.load_compiled(path)
    else:
        network = cnngraph.compile(SPEC)
        cnngraph.load_weights(network, path)
    (value,) = torch.cat([parameter.flatten() for parameter in network.parameters()]).unique()
    assert value == value.round()
