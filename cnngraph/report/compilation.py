"""The result of `compile`: passes, kernels, memory and time, as text and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnngraph.graph.step_memory import StepMemory, predict
from cnngraph.graph.step_time import extra_time
from cnngraph.report.check import Report, macs, params
from cnngraph.report.data import report_data
from cnngraph.report.numbers import duration, plural, size

if TYPE_CHECKING:
    from torch import nn

    from cnngraph.graph import Graph
    from cnngraph.graph.cost import Summary
    from cnngraph.lowering.network import Network
    from cnngraph.passes import PassResult


@dataclass(frozen=True)
class Compiled:
    """A compiled network, and how it came about.

    Attributes:
        network: the network.
        seconds: time of each phase.
        graphs: the graph after each stage, as `(stage, graph)`.
        artifact: the file that the network was saved to.
    """

    network: Network
    seconds: dict[str, float]
    graphs: list[tuple[str, Graph]]
    artifact: Path | None

    def memory(self) -> tuple[StepMemory, float]:
        """The predicted memory of a training step, and the share of time that recomputing adds."""
        _, optimized = self.graphs[-1]
        batch_size = self.network.compilation.options.batch_size
        return predict(optimized, batch_size), extra_time(optimized, batch_size)


_KEYS = ("backend", "kernels", "artifact", "passes", "memory", "seconds")


def compiled_data(
    report: Report, compiled: Compiled | None, error: str | None, optional: Sequence[str]
) -> dict[str, Any]:
    """The result as plain data for JSON; what is unknown is None.

    Args:
        report: the report of the spec.
        compiled: the network, if there is one.
        error: why there is none, if the spec is valid.
        optional: the keys to add, of `graphs` and `code`.
    """
    keys = [*_KEYS, *optional]
    data: dict[str, Any] = dict.fromkeys(keys)
    if compiled is not None:
        compilation = compiled.network.compilation
        memory, more_time = compiled.memory()
        data = {
            "backend": compilation.options.backend,
            "kernels": kernels_in_use(compilation.options.backend),
            "artifact": None if compiled.artifact is None else str(compiled.artifact),
            "passes": [asdict(item) for item in compilation.passes],
            "memory": {
                "policy": compilation.options.memory,
                **asdict(memory),
                "peak": memory.peak,
                "extra_time": more_time,
            },
            "seconds": compiled.seconds,
            "graphs": [{"after": stage, "text": str(graph)} for stage, graph in compiled.graphs],
            "code": code_of(compiled.network),
        }
    return {**report_data(report), **{key: data[key] for key in keys}, "error": error}


def compiled_text(costs: Summary, compiled: Compiled) -> str:
    """Costs, passes, kernels, memory and time, a line each."""
    compilation = compiled.network.compilation
    options = compilation.options
    memory, more_time = compiled.memory()
    first, *others = describe_passes(compilation.passes)
    rows = [
        ("params", params(costs)),
        ("MACs", macs(costs)),
        ("backend", options.backend),
        ("passes", first),
        *(("", line) for line in others),
        ("kernels", describe_kernels(kernels_in_use(options.backend))),
        ("memory", describe_memory(memory)),
    ]
    if options.memory != "fast":
        rows.append(("", describe_policy(options.memory, compilation.passes, more_time)))
    rows.append(("time", describe_phases(compiled.seconds)))
    if compiled.artifact is not None:
        rows.append(("saved", f"{compiled.artifact} ({size(compiled.artifact.stat().st_size)})"))
    return "\n".join(f"  {key:<9}{value}" for key, value in rows)


def describe_passes(passes: Sequence[PassResult]) -> list[str]:
    """A line for each pass: `fuse_batch_norm_act: 33 x batch_norm + relu (1.2 ms)`."""
    if not passes:
        return ["none: plain torch.nn modules"]
    return [f"{item.name}: {_made(item)} ({duration(item.seconds)})" for item in passes]


def _made(item: PassResult) -> str:
    if list(item.made) == [item.name]:
        return "done"
    made = [f"{count:,} x {what}" for what, count in item.made.items()]
    return ", ".join(made) or "nothing to do"


def describe_memory(memory: StepMemory) -> str:
    """`1.7 GB at the peak of a training step of batch 16 (predicted): 0.2 GB weights, ...`."""
    constant = memory.weights + memory.optimizer + memory.input
    return (
        f"{size(memory.peak)} at the peak of a training step of batch {memory.batch_size}"
        f" (predicted): {size(constant)} weights, momentum and input,"
        f" {size(memory.kept)} kept for backward"
    )


def describe_policy(memory: str, passes: Sequence[PassResult], extra_time: float) -> str:
    """`6GB: recomputes 20 values in backward, about 5% more time`."""
    count = sum(item.rewrites for item in passes if item.name.startswith("recompute"))
    if not count:
        return f"{memory}: recomputes nothing in backward"
    values = plural(count, "value")
    more_time = f"about {max(extra_time, 0.01):.0%} more time"
    return f"{memory}: recomputes {values} in backward, {more_time}"


def kernels_in_use(backend: str) -> dict[str, Any]:
    """`compiled` is whether the backend uses the extension (None for eager); then its build."""
    if backend == "eager":
        return {"compiled": None}
    from cnngraph import kernels

    return {"compiled": kernels.available(), **kernels.build_info()}


def describe_kernels(found: Mapping[str, Any]) -> str:
    """`compiled extension (AVX2)`."""
    if found["compiled"] is None:
        return "PyTorch's own"
    if not found["compiled"]:
        return "the compiled extension is missing: fused ops run in plain PyTorch, more slowly"
    details = [str(found["cpu_capability"])] if found.get("cpu_capability") else []
    details += ["CUDA"] if found.get("cuda") else []
    return f"compiled extension ({', '.join(details)})" if details else "compiled extension"


def describe_phases(seconds: Mapping[str, float]) -> str:
    """`check 21 ms, load torch 1.9 s, ...`."""
    return ", ".join(f"{phase} {duration(spent)}" for phase, spent in seconds.items())


def code_of(net: nn.Module) -> str:
    """The generated code of a network and of its levels, each text once."""
    paths: dict[str, list[str]] = {}
    for path, module in net.named_modules():
        if isinstance(code := getattr(module, "code", None), str) and code:
            paths.setdefault(code, []).append(path)
    return "\n".join(f"# {_paths(found)}\n{code}" for code, found in paths.items()).rstrip()


def _paths(paths: Sequence[str]) -> str:
    if paths == [""]:
        return "the network"
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"{', '.join(paths[:3])}{more}"
