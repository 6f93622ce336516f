"""`python -m cnngraph.bench.worker`: a line of JSON in is one request, a line of JSON out its answer.

It holds one subject, a network's step, the floor or the kernels, and does what it is asked with it. It ends when stdin does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

from cnngraph.atomic_write import one_line
from cnngraph.bench.variants import Work, contender_of
from cnngraph.errors import CnngraphError


def prepare_contender(contender: str, work: Mapping[str, Any]) -> Any:
    from cnngraph.bench.network_step import NetworkStep

    return NetworkStep(contender_of(contender), Work.from_json(work))


def prepare_floor(work: Mapping[str, Any]) -> Any:
    from cnngraph.bench.floor import Floor

    return Floor(Work.from_json(work))


def prepare_kernels(threads: int | None, device: str) -> Any:
    from cnngraph.bench.kernel_benchmarks import Rooms

    return Rooms(threads, device)


SUBJECTS = {"prepare_contender": prepare_contender, "prepare_floor": prepare_floor, "prepare_kernels": prepare_kernels}


def serve(requests: IO[str], answers: IO[str]) -> None:
    subject: Any = None
    for line in requests:
        arguments = json.loads(line)
        request = arguments.pop("request")
        try:
            if request in SUBJECTS:
                subject = SUBJECTS[request](**arguments)
                result = subject.prepared
            else:
                result = getattr(subject, request)(**arguments)
            answer = {"result": result}
        except Exception as error:
            answer = {"error": told(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def told(error: Exception) -> str:
    """A mistake on one line: ours as they are, others with their type."""
    if isinstance(error, CnngraphError):
        return one_line(error)
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def end_with_parent() -> None:
    """A worker at work does not read stdin, and would outlive a caller that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    end_with_parent()
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what libraries print must not look like an answer
    sys.stdout = sys.stderr
    serve(requests, answers)


if __name__ == "__main__":
    main()
