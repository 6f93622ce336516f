"""The variants of a network that `bench` compares. `network_step` builds the step of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from cnngraph.errors import CnngraphError, did_you_mean
from cnngraph.options import budget_of

Mode = Literal["train", "eval"]
Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]
MODES: tuple[Mode, ...] = get_args(Mode)
DEVICES: tuple[Device, ...] = get_args(Device)
BATCH_SIZES = {"cpu": 16, "cuda": 128}
"""The default batch size on each device."""


@dataclass(frozen=True)
class Work:
    """The step to measure, as it is sent to the workers.

    Attributes:
        spec: path of the spec.
        params: values for the spec's params.
        batch_size: images per step.
        input: channels, height and width of the input, or its number of features.
        dtype: `bfloat16` and `float16` run under autocast with float32 weights. `float16` needs a
            GPU and scales the gradients.
        mode: a training step, or a forward pass in evaluation mode.
        threads: threads per process; None for torch's default.
        device: the device.
        plugins: Python files that register ops.
        allow_code: allows the spec to import Python code.
    """

    spec: str
    params: Mapping[str, Any]
    batch_size: int
    input: tuple[int, ...]
    dtype: Dtype = "float32"
    mode: Mode = "train"
    threads: int | None = None
    device: Device = "cpu"
    plugins: tuple[str, ...] = ()
    allow_code: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Work:
        """The work that `to_json` wrote."""
        work = Work(**data)
        return replace(work, input=tuple(work.input), plugins=tuple(work.plugins))


@dataclass(frozen=True)
class Variant:
    """An implementation of the network.

    Attributes:
        name: what `--against` calls it.
        about: a description of a few words.
        tuned: whether its process calls `allocator.tune_memory` first (on the CPU).
        captured: whether the whole step runs as one CUDA graph.
        modes: the modes that it supports.
        devices: the devices that it supports.
        on_request: whether it is measured only if `--against` names it.
    """

    name: str
    about: str
    tuned: bool = False
    captured: bool = False
    modes: tuple[Mode, ...] = MODES
    devices: tuple[Device, ...] = DEVICES
    on_request: bool = False

    def about_on(self, device: str) -> str:
        """The description, with the memory settings that apply on this device."""
        return f"{self.about}, memory settings" if self.tuned and device == "cpu" else self.about


OURS = "cnngraph"

_ALL = (
    Variant(OURS, "fused backend, channels_last", tuned=True),
    Variant("default-malloc", "fused backend, channels_last, default malloc", devices=("cpu",)),
    Variant("cnngraph-graph", "fused backend as one CUDA graph", captured=True, devices=("cuda",)),
    Variant("lean", "fused backend, keeping less for backward", tuned=True, modes=("train",)),
    Variant("inference", "fused backend compiled for inference", tuned=True, modes=("eval",)),
    Variant("eager", "plain torch.nn, channels_last"),
    Variant("eager-nchw", "plain torch.nn, contiguous"),
    Variant("eager-graph", "plain torch.nn as one CUDA graph", captured=True, devices=("cuda",)),
    Variant("tuned-malloc", "plain torch.nn, channels_last", tuned=True, devices=("cpu",)),
    Variant("compile", "torch.compile of plain torch.nn, channels_last", tuned=True),
    Variant("compile-max-autotune", "torch.compile, mode max-autotune", devices=("cuda",)),
    Variant("onnxruntime", "ONNX Runtime", modes=("eval",), devices=("cpu",)),
    Variant(
        "torchvision-memory-efficient",
        "torchvision's DenseNet with memory_efficient=True, channels_last",
        tuned=True,
        modes=("train",),
        on_request=True,
    ),
)
VARIANTS = {variant.name: variant for variant in _ALL}
_ALWAYS = (OURS, "default-malloc")


def variant_of(name: str) -> Variant:
    """The variant called `name`; a budget such as `6GB` is the fused backend within it."""
    budget = Variant(name, f"fused backend within {name}", tuned=True, modes=("train",))
    return VARIANTS.get(name, budget)


def always(device: str) -> list[str]:
    """The variants that are always measured: ours, on the CPU with and without memory settings."""
    return [name for name in _ALWAYS if device in VARIANTS[name].devices]


def peers(names: Sequence[str] | None, mode: str, device: str = "cpu") -> list[str]:
    """The variants to compare with: those named, or by default all that support the mode.

    Raises:
        CnngraphError: a name is neither a variant for this device nor a memory budget.
    """
    available = [
        name for name in VARIANTS if name not in _ALWAYS and device in VARIANTS[name].devices
    ]
    if names is None:
        supported = (VARIANTS[name] for name in available if mode in VARIANTS[name].modes)
        return [variant.name for variant in supported if not variant.on_request]
    for name in names:
        if name in available or _is_budget(name):
            continue
        if name in VARIANTS and device not in VARIANTS[name].devices:
            raise CnngraphError(f"`{name}` needs --device {VARIANTS[name].devices[0]}")
        choices = f"choose from {', '.join(available)}, or a memory budget such as 6GB"
        hint = next((text for _, text in did_you_mean(name, available)), choices)
        raise CnngraphError(f"there is no variant `{name}`; {hint}")
    return list(dict.fromkeys(names))


def _is_budget(name: str) -> bool:
    try:
        return budget_of(name) is not None
    except CnngraphError:
        return False
