"""The optimizer, the learning rate of each step, and the moving average of the weights."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cnngraph.training.recipe import Recipe, Schedule, optimizer_class
from cnngraph.weights import parameter_groups


def optimizer_of(
    net: nn.Module, recipe: Recipe, *, one_pass: bool = False
) -> torch.optim.Optimizer:
    """The recipe's optimizer for a network. Frozen parameters are included, for unfreezing.

    With `one_pass`, torch's fused implementation updates the weights, for optimizers that have it;
    that of SGD cannot start the momentum of weights that are unfrozen later.
    """
    kind = optimizer_class(recipe.optimizer.name)
    lr = recipe.optimizer.lr
    rates: dict[str, float] = {}
    if recipe.layer_decay is not None:
        parts = [name for name, part in net.named_children() if [*part.parameters()]]
        rates = {name: lr * recipe.layer_decay**depth for depth, name in enumerate(parts[::-1])}
    decays = "weight_decay" in inspect.signature(kind).parameters
    decay = recipe.optimizer.weight_decay if decays else None
    groups = parameter_groups(net, rates, default=lr, weight_decay=decay)
    for group in groups:
        group["initial_lr"] = group["lr"]
    arguments = dict(recipe.optimizer.arguments)
    excluded = {"foreach", "differentiable"} & arguments.keys()
    if kind is torch.optim.SGD and recipe.unfreeze:
        one_pass = False
    if one_pass and "fused" in inspect.signature(kind).parameters and not excluded:
        arguments.setdefault("fused", True)
    return kind(groups, lr=lr, **arguments)


def state_slots(recipe: Recipe) -> int:
    """How many values per parameter the optimizer keeps."""
    parameter = torch.zeros(2, 2, requires_grad=True)
    parameter.grad = torch.zeros(2, 2)
    kind = optimizer_class(recipe.optimizer.name)
    optimizer = kind([parameter], lr=recipe.optimizer.lr, **recipe.optimizer.arguments)
    optimizer.step()
    state: dict[str, Any] = optimizer.state[parameter]
    return sum(isinstance(value, Tensor) and value.numel() == 4 for value in state.values())


def rate_factor(schedule: Schedule, step: int, steps_per_epoch: int, total: int) -> float:
    """The factor of the learning rate at a step, counted from 0, of `total` steps."""
    if schedule.name == "one_cycle":
        peak = max(1, round(0.3 * total))
        if step < peak:
            return _along_cosine(1 / 25, 1.0, step / peak)
        return _along_cosine(1.0, 1e-5, (step - peak) / max(1, total - peak))
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.name == "cosine":
        return _along_cosine(1.0, 0.0, (step - warmup) / max(1, total - warmup))
    passed = sum(step >= round(epoch * steps_per_epoch) for epoch in schedule.milestones)
    return schedule.gamma**passed


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * min(share, 1.0))) / 2


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rate of every group to `factor` times its own."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def moving_average(net: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network's weights, in `.module`.

    The first updates count more, as in timm: the decay of update n is at most (1 + n) / (10 + n).
    """

    def update(averages: Sequence[Any], weights: Sequence[Any], count: Any) -> None:
        updates = int(count)
        share = 1 - min(decay, (1 + updates) / (10 + updates))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, share)

    average = AveragedModel(net, multi_avg_fn=update)
    return average.requires_grad_(False)
