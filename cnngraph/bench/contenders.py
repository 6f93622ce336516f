"""Who is measured: what each contender is called and what it is. `network_step` knows how each runs a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cnngraph.errors import CnngraphError, did_you_mean

MODES = ("train", "eval")
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Work:
    """One step to be measured, as it is told to a worker.

    Attributes:
        spec: path of the spec.
        input: channels, height and width of the input, or its features.
        dtype: `bfloat16` runs under autocast, with float32 weights.
        threads: None leaves it to torch.
    """

    spec: str
    params: Mapping[str, Any]
    batch_size: int
    input: tuple[int, ...]
    dtype: str = "float32"
    mode: str = "train"
    threads: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Work:
        return Work(**{**data, "input": tuple(data["input"])})


@dataclass(frozen=True)
class Contender:
    """One way to run the network.

    Attributes:
        tuned: whether the process sets `memory_settings.tune_memory` first.
        modes: those it can run.
    """

    name: str
    about: str
    tuned: bool = False
    modes: tuple[str, ...] = MODES


OURS = "cnngraph"

_ALL = (
    Contender(OURS, "fused backend, channels_last, memory settings", tuned=True),
    Contender("default-malloc", "fused backend, channels_last, the C library's default malloc"),
    Contender("lean", "fused backend that keeps less for backward, memory settings", tuned=True, modes=("train",)),
    Contender("inference", "inference backend, channels_last, memory settings", tuned=True, modes=("eval",)),
    Contender("eager", "plain torch.nn, channels_last"),
    Contender("eager-nchw", "plain torch.nn, contiguous"),
    Contender("tuned-malloc", "plain torch.nn, channels_last, memory settings", tuned=True),
    Contender("compile", "torch.compile of plain torch.nn, channels_last, memory settings", tuned=True),
    Contender("onnxruntime", "ONNX Runtime on plain torch.nn's export", modes=("eval",)),
)
CONTENDERS = {contender.name: contender for contender in _ALL}
ALWAYS = (OURS, "default-malloc")
"""The fused backend, with memory settings and without: measured every time."""
PEERS = tuple(name for name in CONTENDERS if name not in ALWAYS)


def peers(names: Sequence[str] | None, mode: str) -> list[str]:
    """The peers asked for, or all that can run in this mode. Raises `CnngraphError` for a name that is none."""
    if names is None:
        return [name for name in PEERS if mode in CONTENDERS[name].modes]
    for name in names:
        if name not in PEERS:
            hint = next((text for _, text in did_you_mean(name, PEERS)), f"there are {', '.join(PEERS)}")
            raise CnngraphError(f"there is no contender `{name}`; {hint}")
    return list(dict.fromkeys(names))
