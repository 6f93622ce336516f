"""Runs of several processes, one per device: `torchrun`, or `cnngraph train --devices N`.

The environment variables of torchrun say which process this is. Each process has a part of every
batch; what it computes is in engine.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from time import monotonic, sleep
from typing import IO

from cnngraph.errors import CnngraphError
from cnngraph.options import Strategy
from cnngraph.training.recipe import Recipe

LOST = 75
"""The exit code of a process that lost another one: try once more (EX_TEMPFAIL of sysexits.h)."""

_GRACE_SECONDS = 10.0


class LostProcessError(CnngraphError):
    """Another process of the run has ended."""


def rank() -> int:
    """The number of this process, counted from 0."""
    return int(os.environ.get("RANK", 0))


def processes() -> int:
    """The number of processes of the run, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def processes_here() -> int:
    """The number of processes of the run on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def require_parts(recipe: Recipe, strategy: Strategy) -> None:
    """Raises `CnngraphError` if a run cannot be divided among its processes."""
    if processes() == 1:
        if strategy == "fsdp":
            raise CnngraphError(
                "`fsdp` shards a network over several processes, and this is a single one: give"
                " --devices, or use torchrun"
            )
        return
    if strategy == "fsdp" and recipe.precision == "float16":
        raise CnngraphError("`fsdp` does not work with `precision: float16`; use bfloat16")
    if recipe.batch_size < 2 * processes():
        raise CnngraphError(
            f"a batch of {recipe.batch_size} is too small for {processes()} processes: each needs"
            " two images (--batch-size)"
        )


def is_loss_of_process(error: RuntimeError) -> bool:
    """Whether an exchange failed because another process has ended."""
    from torch import distributed

    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def launch(command: Sequence[str], count: int, hint: str) -> int:
    """Runs a command in several processes on this machine, until all or one of them has ended.

    The first process writes to the terminal. If another one fails, its last line is shown.

    Args:
        command: the program and its arguments.
        count: the number of processes.
        hint: how to go on after a process was lost, for the message.

    Returns:
        The exit code.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "cnngraph",
    }  # fmt: skip
    with ExitStack() as files:
        errors: list[IO[bytes] | None] = [None]
        errors += [files.enter_context(tempfile.TemporaryFile()) for _ in range(1, count)]
        workers = [
            subprocess.Popen(
                command,
                env={**os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)},
                stdout=None if number == 0 else subprocess.DEVNULL,
                stderr=error,
            )
            for number, error in enumerate(errors)
        ]
        try:
            first = _wait(workers)
        finally:
            _stop(workers)
        codes = [worker.returncode for worker in workers]
        if codes[0] not in (LOST, *(-number for number in signal.valid_signals())):
            return codes[0]  # it has said what happened, if anything
        if codes[first] == LOST:
            first = next((n for n, code in enumerate(codes) if code not in (0, LOST)), first)
        what = _cause(codes[first], errors[first])
        print(f"error: process {first} of {count} {what}; {hint}", file=sys.stderr)
        return 1


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits until all processes have ended, or one with an error; returns its number."""
    while True:
        codes = [worker.poll() for worker in workers]
        failed = [number for number, code in enumerate(codes) if code]
        if failed or None not in codes:
            return failed[0] if failed else 0
        with suppress(KeyboardInterrupt):  # every process hears of it, and ends by itself
            sleep(0.05)


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Gives the processes time to end by themselves, and then ends them."""
    deadline = monotonic() + _GRACE_SECONDS
    while monotonic() < deadline and any(worker.poll() is None for worker in workers):
        with suppress(KeyboardInterrupt):
            sleep(0.05)
    for worker in workers:
        worker.kill()
        worker.wait()


def _cause(code: int, error: IO[bytes] | None) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    if error is not None:
        error.seek(0)
        lines = error.read().decode(errors="replace").strip().splitlines()
        if lines:
            return f"failed: {lines[-1].removeprefix('error: ')}"
    return f"ended with exit code {code}"
