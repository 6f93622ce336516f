"""Worker processes: they answer requests in JSON, and all end when the benchmark ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import IO, Any

from cnngraph.atomic_write import one_line
from cnngraph.errors import CnngraphError

_ALLOCATOR_VARIABLES = ("MALLOC_", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE", "LD_PRELOAD")
"""Environment variables that would change what a variant measures; workers do not inherit them."""


class WorkerError(CnngraphError):
    """What a worker could not do, on one line."""


class Worker:
    """A process that answers one request at a time."""

    def __init__(self, name: str, threads: int | None) -> None:
        self.name = name
        env = {k: v for k, v in os.environ.items() if not k.startswith(_ALLOCATOR_VARIABLES)}
        if threads is not None:
            env["OMP_NUM_THREADS"] = str(threads)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cnngraph.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=env,
            text=True,
            start_new_session=True,  # its children end with it, and Ctrl-C reaches only the parent
        )

    @property
    def process_id(self) -> int:
        """The process's ID."""
        return self._process.pid

    def ask(self, request: str, **arguments: Any) -> Any:
        """Sends a request and returns the answer.

        Raises:
            WorkerError: the request failed, or the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"request": request, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise WorkerError(self._why_it_ended())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    def _why_it_ended(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        last = self._stderr.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
        if status >= 0:
            return f"the process ended with exit code {status}" + (f": {last}" if last else "")
        name = signal.Signals(-status).name
        reason = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{reason}"

    def end(self) -> None:
        """Ends the process and its children at once."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


class Workers:
    """All workers of a benchmark; leaving the `with` block ends them."""

    def __init__(self, threads: int | None) -> None:
        self._threads = threads
        self._workers: list[Worker] = []

    def start(self, name: str) -> Worker:
        """Starts a worker. Raises `WorkerError` if the system starts no process."""
        try:
            worker = Worker(name, self._threads)
        except OSError as error:
            raise WorkerError(f"cannot start a process: {one_line(error)}") from None
        self._workers.append(worker)
        return worker

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.end()
