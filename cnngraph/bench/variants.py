"""Who is measured: what each contender is called and what it is. `network_step` knows how each runs a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cnngraph.errors import CnngraphError, did_you_mean
from cnngraph.options import budget_of

MODES = ("train", "eval")
DEVICES = ("cpu", "cuda")
DTYPES = ("float32", "bfloat16", "float16")
BATCH_SIZES = {"cpu": 16, "cuda": 128}
"""Of a step, where none is given."""


@dataclass(frozen=True)
class Work:
    """One step to be measured, as it is told to a worker.

    Attributes:
        spec: path of the spec.
        input: channels, height and width of the input, or its features.
        dtype: `bfloat16` and `float16` run under autocast, with float32 weights; `float16` on a GPU only, with scaled
            gradients.
        threads: None leaves it to torch.
    """

    spec: str
    params: Mapping[str, Any]
    batch_size: int
    input: tuple[int, ...]
    dtype: str = "float32"
    mode: str = "train"
    threads: int | None = None
    device: str = "cpu"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Work:
        return Work(**{**data, "input": tuple(data["input"])})


@dataclass(frozen=True)
class Contender:
    """One way to run the network.

    Attributes:
        tuned: whether the process sets `allocator.tune_memory` first; on the CPU, elsewhere it is of no use.
        captured: whether the whole step runs as one CUDA graph.
        modes: those it can run.
        devices: those it can run on.
        special: whether it runs few specs, and is measured only where it is asked for.
    """

    name: str
    about: str
    tuned: bool = False
    captured: bool = False
    modes: tuple[str, ...] = MODES
    devices: tuple[str, ...] = DEVICES
    special: bool = False

    def about_on(self, device: str) -> str:
        return f"{self.about}, memory settings" if self.tuned and device == "cpu" else self.about


OURS = "cnngraph"

_ALL = (
    Contender(OURS, "fused backend, channels_last", tuned=True),
    Contender("default-malloc", "fused backend, channels_last, the C library's default malloc", devices=("cpu",)),
    Contender("cnngraph-graph", "fused backend, its step as one CUDA graph", captured=True, devices=("cuda",)),
    Contender("lean", "fused backend that keeps less for backward", tuned=True, modes=("train",)),
    Contender("inference", "fused backend compiled for inference, channels_last", tuned=True, modes=("eval",)),
    Contender("eager", "plain torch.nn, channels_last"),
    Contender("eager-nchw", "plain torch.nn, contiguous"),
    Contender(
        "eager-graph", "plain torch.nn, channels_last, its step as one CUDA graph", captured=True, devices=("cuda",)
    ),
    Contender("tuned-malloc", "plain torch.nn, channels_last", tuned=True, devices=("cpu",)),
    Contender("compile", "torch.compile of plain torch.nn, channels_last", tuned=True),
    Contender("compile-max-autotune", "torch.compile in the mode max-autotune, channels_last", devices=("cuda",)),
    Contender("onnxruntime", "ONNX Runtime on plain torch.nn's export", modes=("eval",), devices=("cpu",)),
    Contender(
        "torchvision-memory-efficient",
        "torchvision's DenseNet with memory_efficient=True, channels_last",
        tuned=True,
        modes=("train",),
        special=True,
    ),
)
CONTENDERS = {contender.name: contender for contender in _ALL}
_ALWAYS = (OURS, "default-malloc")


def contender_of(name: str) -> Contender:
    """The contender of this name; that of a budget, such as `6GB`, is the fused backend that keeps to it."""
    return CONTENDERS.get(name) or Contender(name, f"fused backend within {name}", tuned=True, modes=("train",))


def _is_budget(name: str) -> bool:
    try:
        return budget_of(name) is not None
    except CnngraphError:
        return False


def always(device: str) -> list[str]:
    """Those that are measured every time: the fused backend, on the CPU with memory settings and without."""
    return [name for name in _ALWAYS if device in CONTENDERS[name].devices]


def peers(names: Sequence[str] | None, mode: str, device: str = "cpu") -> list[str]:
    """The peers asked for, or all that can run in this mode and are not special.

    Raises `CnngraphError` for a name that is none there, and no budget of memory.
    """
    there = [name for name in CONTENDERS if name not in _ALWAYS and device in CONTENDERS[name].devices]
    if names is None:
        return [name for name in there if mode in CONTENDERS[name].modes and not CONTENDERS[name].special]
    for name in names:
        if name not in there and not _is_budget(name):
            if name in CONTENDERS and device not in CONTENDERS[name].devices:
                raise CnngraphError(f"`{name}` needs --device {CONTENDERS[name].devices[0]}")
            hint = next(
                (text for _, text in did_you_mean(name, there)),
                f"there are {', '.join(there)}, and budgets of memory: 6GB",
            )
            raise CnngraphError(f"there is no contender `{name}`; {hint}")
    return list(dict.fromkeys(names))
