"""What `compile` says of what it did: passes, kernels, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnngraph.report.numbers import duration, plural, size

if TYPE_CHECKING:
    from torch import fx

    from cnngraph.graph.step_memory import StepMemory
    from cnngraph.passes import PassResult


def describe_passes(passes: Sequence[PassResult]) -> list[str]:
    """`fuse_batch_norm_act: 33 x batch_norm + relu, 16 x batch_norm + add + relu (1.2 ms)`, a line for each pass."""
    if not passes:
        return ["none: plain torch.nn modules"]
    return [f"{item.name}: {_made(item)} ({duration(item.seconds)})" for item in passes]


def _made(item: PassResult) -> str:
    if list(item.made) == [item.name]:
        return "done"
    return ", ".join(f"{count:,} x {what}" for what, count in item.made.items()) or "nothing to do"


def describe_memory(memory: StepMemory) -> str:
    """`1.7 GB at the peak of a training step of batch 16 (predicted): 0.2 GB weights, momentum and input, ...`."""
    own = memory.weights + memory.optimizer + memory.input
    return (
        f"{size(memory.peak)} at the peak of a training step of batch {memory.batch_size} (predicted): "
        f"{size(own)} weights, momentum and input, {size(memory.kept)} kept for backward"
    )


def describe_policy(memory: str, passes: Sequence[PassResult], extra_time: float) -> str:
    """`6GB: computed again in 20 places, about 5% more time`."""
    places = sum(item.rewrites for item in passes if item.name.startswith("recompute"))
    if not places:
        return f"{memory}: nothing is computed again in backward"
    return (
        f"{memory}: {plural(places, 'place')} computed again in backward, about {max(extra_time, 0.01):.0%} more time"
    )


def kernels_in_use(backend: str) -> dict[str, Any]:
    """Whether the fused backend runs on the compiled extension, and how that was built."""
    if backend == "eager":
        return {"compiled": None}
    from cnngraph import kernels

    return {"compiled": kernels.available(), **kernels.build_info()}


def describe_kernels(found: Mapping[str, Any]) -> str:
    if found["compiled"] is None:
        return "PyTorch's own"
    if not found["compiled"]:
        return "the compiled extension is missing: the fused ops run as plain PyTorch, more slowly"
    details = [str(found[key]) for key in ("cpu_capability",) if found.get(key)]
    details += ["CUDA"] if found.get("cuda") else []
    return f"compiled extension ({', '.join(details)})" if details else "compiled extension"


def describe_phases(seconds: Mapping[str, float]) -> str:
    """`check 21 ms, load torch 1.9 s, ...`."""
    return ", ".join(f"{phase} {duration(spent)}" for phase, spent in seconds.items())


def code_of(net: fx.GraphModule) -> str:
    """The Python code of a network's `forward`, and of its side heads'."""
    from torch import fx

    heads = [
        f"# {name}\n{module.code.strip()}"
        for name, module in net.named_modules()
        if name and isinstance(module, fx.GraphModule)
    ]
    return "\n\n".join([net.code.strip(), *heads])
