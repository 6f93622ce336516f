"""What fine-tuning needs besides weights: parts that do not train, and learning rates by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from cnngraph.weights.patterns import matches, require_match, unwrapped
from cnngraph.weights.report import WeightsError


def freeze(net: nn.Module, *patterns: str) -> tuple[str, ...]:
    """Stops parts of a network from training.

    Their parameters no longer require gradients, and their batch norms stay in evaluation, also
    when `net.train()` is
    called: they normalise with the running statistics they have, and leave those alone. Otherwise a
    frozen part would change with every batch it sees. Dropout in a frozen part goes on as
    `net.train()` says.

    Args:
        net: the network.
        patterns: each the path of a parameter, or of a module for all in it: `layer1`, `layer?.0`,
            `*.bn1.weight`.

    Returns:
        The names of the frozen parameters.

    Raises:
        WeightsError: a pattern matches nothing, or there is none.
    """
    return _set_training(net, patterns, False)


def unfreeze(net: nn.Module, *patterns: str) -> tuple[str, ...]:
    """Undoes `freeze` for what the patterns match: the names of the parameters that train again."""
    return _set_training(net, patterns, True)


def parameter_groups(
    net: nn.Module,
    rates: Mapping[str, float],
    *,
    default: float | None = None,
    weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Groups for an optimizer of `torch.optim`, in which every parameter is once.

    Frozen parameters are among them: an optimizer passes over what has no gradient, and they train
    once unfrozen.

    Args:
        net: the network.
        rates: pattern (as for `freeze`) -> learning rate. A parameter goes with the first pattern
            that matches it.
        default: the learning rate of all other parameters; if not given, the optimizer's own.
        weight_decay: of the weights; biases and the parameters of norms (all that have one
            dimension) then have none. If not given, it is the optimizer's own for all.

    Returns:
        One group, or two where `weight_decay` is given, for each pattern and for the rest, with
        `params`, `lr`,
        `weight_decay` and a `name`; none is empty.

    Raises:
        WeightsError: a pattern matches nothing, or nothing that those before it have not taken.
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
                f"the pattern `{pattern}` has nothing left: those before it match the same; put "
                f"it before them"
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
        raise WeightsError('say what to freeze or unfreeze: a pattern of paths, "*" for all')
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
            _hold_statistics(norm, not trains, net.training)
    return tuple(named)


def _norms(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All batch norms (and the like) that keep running statistics."""
    for path, module in net.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            yield path, module


class _StaysInEvaluation:
    """Takes the place of a module's `train`; a class, so that it is copied and pickled with the
    module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.module


def _hold_statistics(norm: nn.Module, held: bool, training: bool) -> None:
    norm.__dict__.pop("train", None)
    norm.train(training and not held)
    if held:
        norm.__dict__["train"] = _StaysInEvaluation(norm)
