"""What a run will do and need, before its first step: shapes, steps, memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cnngraph.errors import CnngraphError
from cnngraph.graph.step_memory import OPTIMIZERS, predict
from cnngraph.lowering.network import Network
from cnngraph.options import Strategy
from cnngraph.report.numbers import plural, short, size
from cnngraph.shape import TensorShape
from cnngraph.training.data import Data
from cnngraph.training.data.loader import Order
from cnngraph.training.distributed import processes
from cnngraph.training.optimization import state_slots
from cnngraph.training.recipe import Recipe
from cnngraph.training.sharding import blocks


@dataclass(frozen=True)
class Plan:
    """What a run will do and need.

    Attributes:
        images: the number of images to train on, and to evaluate on.
        trained: the number of parameters that are trained.
        steps: steps of the optimizer in an epoch.
        memory: predicted bytes of a step: weights, gradients, optimizer, averages, activations.
        available: bytes that the device has free; None if unknown.
        largest: the largest batch that fits, at most the number of images; None if unknown.
    """

    network: str
    data: str
    images: tuple[int, int]
    skipped: int
    classes: int
    input: TensorShape
    parameters: int
    trained: int
    epochs: int
    batch_size: int
    steps: int
    device: str
    precision: str
    memory: int
    available: int | None
    largest: int | None

    def require_fit(self) -> None:
        """Raises `CnngraphError` if a step needs more memory than there is."""
        if self.available is None or self.memory <= self.available:
            return
        needs = (
            f"a step of {plural(self.batch_size, 'image')} needs {size(self.memory)}; {self.device}"
            f" has {size(self.available)} free"
        )
        if not self.largest:
            raise CnngraphError(f"{needs}, and not even one image fits")
        raise CnngraphError(
            f"{needs}: the largest batch that fits is {self.largest} (--batch-size auto takes it)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for `--format json`."""
        return {**self.__dict__, "input": list(self.input), "images": list(self.images)}

    def __str__(self) -> str:
        left = "" if not self.skipped else f", {plural(self.skipped, 'unreadable file')} left out"
        frozen = self.parameters - self.trained
        lines = {
            "data": f"{self.data}: {self.images[0]:,} images to train on, {self.images[1]:,} to"
            f" evaluate on, {self.classes} classes{left}",
            "network": f"{self.network}, {self.input} -> {self.classes}, {short(self.parameters)}"
            f" parameters{f', {short(frozen)} of them frozen' if frozen else ''}",
            "steps": f"{plural(self.epochs, 'epoch')} of {plural(self.steps, 'step')} with batches"
            f" of {plural(self.batch_size, 'image')}, {self.precision} on {self.device}",
            "memory": f"{size(self.memory)} for a step"
            + (f" of {size(self.available)} free" if self.available is not None else "")
            + (f"; the largest batch that fits is {self.largest:,}" if self.largest else ""),
        }
        return "\n".join(f"{key:<8} {value}" for key, value in lines.items())


def plan_of(
    net: Network, data: Data, recipe: Recipe, device: torch.device, strategy: Strategy
) -> Plan:
    """The plan of a run. Only predicts; nothing is run."""
    order = Order(len(data.train.labels), recipe.batch_size, recipe.seed)
    available = available_memory(device)
    parameters = sum(value.numel() for value in net.parameters())
    return Plan(
        network=net.compilation.graph.name,
        data=data.name,
        images=(len(data.train.labels), len(data.val.labels)),
        skipped=len(data.skipped),
        classes=len(data.classes),
        input=net.compilation.graph.input,
        parameters=parameters,
        trained=sum(value.numel() for value in net.parameters() if value.requires_grad),
        epochs=recipe.epochs,
        batch_size=order.batch_size,
        steps=-(-order.batches // recipe.accumulate),
        device=str(device),
        precision=recipe.precision,
        memory=memory_of(net, recipe, order.batch_size, strategy),
        available=available,
        largest=None
        if available is None
        else largest_batch(net, recipe, available, order.count, strategy),
    )


def memory_of(net: Network, recipe: Recipe, batch_size: int, strategy: Strategy) -> int:
    """Predicted bytes of a training step in a process, without the scratch memory of libraries."""
    frozen = () if recipe.unfreeze else recipe.freeze
    own = -(-batch_size // processes())
    step = predict(net.compilation.optimized, own, recipe.precision, frozen)
    state = state_slots(recipe) * step.gradients
    _, temporary = OPTIMIZERS.get(recipe.optimizer.name, (0, 2))
    step = replace(step, optimizer=state, update=temporary * step.largest)
    averages = 0 if recipe.ema is None else step.weights
    total = step.peak + averages
    if strategy == "ddp":
        return total
    sharded = step.weights + averages + step.optimizer + step.gradients
    return total - sharded * (processes() - 1) // processes() + 2 * _largest_block(net)


def _largest_block(net: Network) -> int:
    """Bytes of the weights that sharded processes gather at once, at most."""
    return max(
        (sum(value.nbytes for value in block.parameters()) for block in blocks(net)), default=0
    )


def largest_batch(
    net: Network, recipe: Recipe, available: int, most: int, strategy: Strategy
) -> int:
    """The largest batch of at most `most` images whose step fits into `available` bytes, or 0."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if memory_of(net, recipe, middle, strategy) <= available:
            low = middle
        else:
            high = middle - 1
    return low


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on a GPU, or in this machine or container; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    if found is None:
        return None
    free = int(found[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.strip().isdigit() and used.strip().isdigit():
        free = min(free, int(limit) - int(used))
    return free


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
