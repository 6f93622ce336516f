"""Worker processes: started, asked by lines of JSON, and ended together whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import IO, Any

from cnngraph.atomic_write import one_line
from cnngraph.errors import CnngraphError

_STEERING = ("MALLOC_", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE", "LD_PRELOAD")
"""Variables by which the caller's environment would change a contender into another."""


class WorkerError(CnngraphError):
    """What a worker could not do, on one line."""


class Worker:
    """A process that answers requests one by one."""

    def __init__(self, name: str, threads: int | None) -> None:
        self.name = name
        env = {key: value for key, value in os.environ.items() if not key.startswith(_STEERING)}
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
            start_new_session=True,  # so that its own children end with it, and Ctrl-C is ours to handle
        )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, request: str, **arguments: Any) -> Any:
        """What the worker answers. Raises `WorkerError` where it cannot, or is gone."""
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
        return f"the process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

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
    """All workers of a run; leaving the `with` block ends them."""

    def __init__(self, threads: int | None) -> None:
        self._threads = threads
        self._workers: list[Worker] = []

    def start(self, name: str) -> Worker:
        try:
            worker = Worker(name, self._threads)
        except OSError as error:
            raise WorkerError(f"no process could be started: {one_line(error)}") from None
        self._workers.append(worker)
        return worker

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
