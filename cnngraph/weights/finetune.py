"""Fine-tuning: frozen parts, and learning rates by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from cnngraph.graph.patterns import matches
from cnngraph.weights.patterns import require_match, unwrapped
from cnngraph.weights.report import WeightsError


def freeze(net: nn.Module, *patterns: str) -> tuple[str, ...]:
    """Freezes parts of a network.

    Their parameters no longer require gradients, and their batch norms stay in evaluation mode when
    `net.train()` is called: they use their running statistics and do not update them. Otherwise,
    every batch would change a frozen part. Dropout follows `net.train()` even in frozen parts.

    Args:
        net: the network.
        patterns: paths of parameters, or of modules for all their parameters: `layer1`,
            `layer?.0`, `*.bn1.weight`.

    Returns:
        The names of the frozen parameters.

    Raises:
        WeightsError: a pattern matches nothing, or no pattern is given.
    """
    return _set_training(net, patterns, False)


def unfreeze(net: nn.Module, *patterns: str) -> tuple[str, ...]:
    """Undoes `freeze`. Returns the names of all parameters that match, which now train."""
    return _set_training(net, patterns, True)


def parameter_groups(
    net: nn.Module,
    rates: Mapping[str, float],
    *,
    default: float | None = None,
    weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer of `torch.optim`, with every parameter in exactly one.

    Frozen parameters are included: optimizers skip parameters without gradients, and these train
    as soon as they are unfrozen.

    Args:
        net: the network.
        rates: pattern (as for `freeze`) -> learning rate. The first pattern that matches a
            parameter applies.
        default: the learning rate of all other parameters; by default the optimizer's own.
        weight_decay: the weight decay of all parameters but biases and those of norms (all with one
            dimension), which get none. By default, all get the optimizer's own.

    Returns:
        For each pattern and the rest, one group, or two with `weight_decay`. Each has `params`,
        `lr`, `weight_decay` and a `name`; no group is empty.

    Raises:
        WeightsError: a pattern matches nothing, or only parameters of patterns before it.
    """
    net = unwrapped(net)
    parameters = dict(net.named_parameters())
    groups: dict[tuple[str | None, bool], list[nn.Parameter]] = {
        (pattern, decays): [] for pattern in (*rates, None) for decays in (True, False)
    }
    for name, parameter in parameters.items():
        pattern = next((pattern for pattern in rates if matches(name, pattern)), None)
        decays = weight_decay is None or parameter.ndim > 1
        groups[pattern, decays].append(parameter)
    for pattern in rates:
        require_match(pattern, parameters)
        if not groups[pattern, True] and not groups[pattern, False]:
            raise WeightsError(
                f"no parameter is left for the pattern `{pattern}`: patterns before it match them;"
                " put it first"
            )
    found: list[dict[str, Any]] = []
    for (pattern, decays), members in groups.items():
        if not members:
            continue
        group: dict[str, Any] = {
            "params": members,
            "name": (pattern or "default") + ("" if decays else ", no decay"),
        }
        rate = default if pattern is None else rates[pattern]
        if rate is not None:
            group["lr"] = rate
        if weight_decay is not None:
            group["weight_decay"] = weight_decay if decays else 0.0
        found.append(group)
    return found


def _set_training(net: nn.Module, patterns: tuple[str, ...], trains: bool) -> tuple[str, ...]:
    net = unwrapped(net)
    if not patterns:
        raise WeightsError('no pattern is given: name the parts, or "*" for all')
    parameters = dict(net.named_parameters())
    norms = dict(_norms(net))
    for pattern in patterns:
        require_match(pattern, [*parameters, *norms])
    named = [name for name in parameters if any(matches(name, pattern) for pattern in patterns)]
    for name in named:
        parameters[name].requires_grad_(trains)
    for path, norm in norms.items():
        own = [f"{path}.{name}" if path else name for name, _ in norm.named_parameters()]
        whole = own and all(
            not parameters[name].requires_grad for name in own if name in parameters
        )
        touched = any(name in named for name in own)
        if any(matches(path, pattern) for pattern in patterns) or (touched and (trains or whole)):
            _fix_statistics(norm, not trains, net.training)
    return tuple(named)


def _norms(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All batch and instance norms with running statistics."""
    for path, module in net.named_modules():  # pyright: ignore[reportUnknownVariableType]
        if isinstance(module, _NormBase) and module.track_running_stats:
            yield path, module


class _StaysInEvaluation:
    """Replaces the `train` of a module. A class, to be copied and pickled with the module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.module


def _fix_statistics(norm: nn.Module, fixed: bool, training: bool) -> None:
    norm.__dict__.pop("train", None)
    norm.train(training and not fixed)
    if fixed:
        norm.__dict__["train"] = _StaysInEvaluation(norm)
