"""`python -m cnngraph.bench.worker`: reads requests and writes answers, one line of JSON each.

A worker has one subject (a network's step, the floor, the fused kernels, or the kernels of layers)
and calls its methods. It ends when stdin does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cnngraph.atomic_write import one_line
from cnngraph.bench.variants import Work, variant_of
from cnngraph.errors import CnngraphError
from cnngraph.ops import load_plugin_file


def prepare_variant(variant: str, work: Mapping[str, Any]) -> Any:
    """The step of a variant."""
    from cnngraph.bench.network_step import NetworkStep

    return NetworkStep(variant_of(variant), _work(work))


def prepare_floor(work: Mapping[str, Any]) -> Any:
    """The floor of a step."""
    from cnngraph.bench.floor import Floor

    return Floor(_work(work))


def _work(data: Mapping[str, Any]) -> Work:
    work = Work.from_json(data)
    for file in work.plugins:
        load_plugin_file(Path(file), file)
    return work


def prepare_kernels(threads: int | None, device: str) -> Any:
    """The fused kernels."""
    from cnngraph.bench.kernel_benchmarks import Kernels

    return Kernels(threads, device)


def prepare_layers(threads: int | None, dtype: str, batch_size: int) -> Any:
    """The kernels of layers."""
    from cnngraph.bench.layer_benchmarks import Layers

    return Layers(threads, dtype, batch_size)


SUBJECTS = {
    item.__name__: item
    for item in (prepare_variant, prepare_floor, prepare_kernels, prepare_layers)
}
"""The requests that make a subject; any other is a method of the last one made."""


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answers requests until there are no more."""
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
            answer = {"error": message_of(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def message_of(error: Exception) -> str:
    """An error on one line; the type is named unless the error is cnngraph's own."""
    if isinstance(error, CnngraphError):
        return one_line(error)
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


def end_with_parent() -> None:
    """Ends this process with its parent: a busy worker does not notice that stdin was closed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Serves stdin and stdout, which libraries can then neither read nor print to."""
    end_with_parent()
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    serve(requests, answers)


if __name__ == "__main__":
    main()
