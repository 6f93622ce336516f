"""Weights from a file into a network: all checks first, then the copying."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from cnngraph.elaborate import elaborate_or_raise
from cnngraph.lowering.network import Network
from cnngraph.weights.files import Weights, from_mapping, module_kinds, network_name, read_weights
from cnngraph.weights.patterns import as_patterns, matches, require_match, unwrapped
from cnngraph.weights.report import SHOWN, LoadReport, Mismatch, WeightsError, closest, listed
from cnngraph.weights.transfer import Alignment, Unit, align

PREFIXES = {"module.": "DataParallel or DistributedDataParallel", "_orig_mod.": "torch.compile"}
"""What wrappers put before all keys -> the wrapper."""

RENAMINGS: Mapping[str, tuple[str, str]] = {
    "DenseNet's older keys": (r"^(.*\.?denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$", r"\1\2"),
}
"""Keys of published files that are called otherwise today: pattern and replacement, tried where
they give known keys."""

_COUNTER = "num_batches_tracked"
_RESHAPED = "its module has another shape"


def load_weights(
    net: nn.Module,
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    strict: bool = True,
    transfer: bool = False,
    skip: str | Sequence[str] = (),
) -> LoadReport:
    """Loads weights and buffers into a network, in place, into the dtypes and on the devices it
    has.

    Everything is checked before anything is copied: on an error the network is as it was. Into a
    network compiled with
    `outputs`, a file of the whole network is loaded as far as it goes.

    Args:
        net: the network.
        weights: a safetensors file, a file by `torch.save` (a state dict or a checkpoint with one),
            or a state dict.
        strict: the network and the file must hold the same tensors. If not, what is in both is
            loaded; a module is left alone if one of its tensors has another shape in the file.
        transfer: the network was edited since: finds where modules have moved to, by their place
            and shapes. Nothing is required to match then; the report says what became of each
            tensor.
        skip: patterns of what not to load, such as `["fc"]`: of a tensor's path or of a module that
            holds it.

    Returns:
        What was loaded from where, and what was not and why; `print` it.

    Raises:
        WeightsError: the file cannot be read, does not fit (its `report` says how), or nothing at
            all was to load; or a pattern of `skip` matches nothing.
    """
    net = unwrapped(net)
    here: dict[str, Tensor] = {
        key: value for key, value in net.state_dict().items() if isinstance(value, Tensor)
    }
    source = _read(weights)
    source = _renamed(_without_prefixes(source, here), here)
    patterns = as_patterns(skip)
    for pattern in patterns:
        require_match(pattern, [*here, *source.tensors])
    skipped = _matching(here, patterns)
    wanted = {key: value for key, value in here.items() if key not in skipped}
    aside = _matching(source.tensors, patterns) | _of_the_rest(net, source.tensors)
    source = replace(
        source, tensors={key: value for key, value in source.tensors.items() if key not in aside}
    )
    wanted, source = _without_counters(wanted, source)

    if transfer:
        plan = _by_place(wanted, source, module_kinds(net, wanted))
    else:
        plan = _by_name(wanted, source, whole_modules=not strict)
    report = _report(plan, source, [key for key in here if key in skipped])
    if strict and not transfer and (report.missing or report.mismatched or report.unexpected):
        raise WeightsError(_misfit(report, net, here, source), report)
    if wanted and not plan.origins:
        raise WeightsError(
            f"nothing in {source.name} fits {network_name(net)}: nothing was loaded\n{report}",
            report,
        )
    _copy(plan.origins, wanted, source)
    return report


@dataclass
class _Plan:
    """Key here -> the key of the file to load; for the others, why not."""

    origins: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    mismatched: dict[str, Mismatch] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# --- what the file's keys are ---------------------------------------------------------------------


def _read(weights: str | os.PathLike[str] | Mapping[str, Tensor]) -> Weights:
    if isinstance(weights, Mapping):
        return from_mapping(weights, "the state dict")
    return read_weights(weights)


def _without_prefixes(source: Weights, here: Mapping[str, Tensor]) -> Weights:
    while True:
        prefix = next(
            (p for p in PREFIXES if all(key.startswith(p) for key in source.tensors)), None
        )
        if prefix is None or any(key.startswith(prefix) for key in here):
            return source
        source = replace(
            source,
            tensors={key.removeprefix(prefix): value for key, value in source.tensors.items()},
            kinds={path.removeprefix(prefix): kind for path, kind in source.kinds.items()},
            notes=(*source.notes, f"took off the prefix `{prefix}` of {PREFIXES[prefix]}"),
        )


def _renamed(source: Weights, here: Mapping[str, Tensor]) -> Weights:
    for title, (pattern, replacement) in RENAMINGS.items():
        names = {
            key: re.sub(pattern, replacement, key) for key in source.tensors if key not in here
        }
        changed = {key: name for key, name in names.items() if key != name}
        taken = set(changed.values()) & source.tensors.keys() or len(set(changed.values())) < len(
            changed
        )
        if not taken and any(name in here for name in changed.values()):
            first, name = next(iter(changed.items()))
            source = replace(
                source,
                tensors={changed.get(key, key): value for key, value in source.tensors.items()},
                notes=(*source.notes, f"{title}: renamed {len(changed)}, as {first} to {name}"),
            )
    return source


def _without_counters(
    wanted: dict[str, Tensor], source: Weights
) -> tuple[dict[str, Tensor], Weights]:
    """Batch norms had no counter before torch 0.4.1; a file of that time fits without."""
    counters = [key for key in wanted if key.endswith(f".{_COUNTER}")]
    if not counters or any(key.endswith(f".{_COUNTER}") for key in source.tensors):
        return wanted, source
    if not any(key.endswith(".running_mean") for key in source.tensors):
        return wanted, source
    note = f"no {_COUNTER} in the file, as before torch 0.4.1: {len(counters)} are left as they are"
    rest = {key: value for key, value in wanted.items() if key not in set(counters)}
    return rest, replace(source, notes=(*source.notes, note))


def _matching(keys: Iterable[str], patterns: Sequence[str]) -> set[str]:
    return {key for key in keys if any(matches(key, pattern) for pattern in patterns)}


def _of_the_rest(net: nn.Module, keys: Iterable[str]) -> set[str]:
    """Keys of what a network compiled with `outputs` leaves out of its spec."""
    if not isinstance(net, Network) or not net.compilation.options.outputs:
        return set()
    whole = elaborate_or_raise(net.compilation.spec, net.compilation.params)
    rest = whole.by_path.keys() - net.compilation.graph.by_path.keys()
    return {key for key in keys if key in rest or _module(key) in rest}


# --- what goes where ------------------------------------------------------------------------------


def _by_name(wanted: Mapping[str, Tensor], source: Weights, *, whole_modules: bool) -> _Plan:
    plan = _Plan()
    for key, value in wanted.items():
        there = source.tensors.get(key)
        if there is None:
            plan.missing[key] = ""
        elif there.shape != value.shape:
            plan.mismatched[key] = Mismatch(tuple(there.shape), tuple(value.shape))
        else:
            plan.origins[key] = key
    if whole_modules:
        changed = {_module(key) for key in plan.mismatched}
        for key in [key for key in plan.origins if _module(key) in changed]:
            del plan.origins[key]
            plan.missing[key] = _RESHAPED
    return plan


def _by_place(wanted: Mapping[str, Tensor], source: Weights, kinds: Mapping[str, str]) -> _Plan:
    here, file = _units(wanted, kinds), _units(source.tensors, source.kinds)
    alignment = align(list(here.values()), list(file.values()), source.ordered)
    plan = _Plan(notes=alignment.doubts)
    if not source.ordered:
        plan.notes.append(
            "the file does not say the order of its modules: fewer moves can be found"
        )
    for path, origin in alignment.origins.items():
        plan.origins |= {_key(path, leaf): _key(origin, leaf) for leaf in here[path].shapes}
    used = {origin: path for path, origin in alignment.origins.items()}
    for unit in here.values():
        if unit.path not in alignment.origins:
            _leave(unit, file.get(unit.path), used, alignment, plan)
    return plan


def _leave(
    unit: Unit, there: Unit | None, used: Mapping[str, str], alignment: Alignment, plan: _Plan
) -> None:
    """Says why a module has no origin; what its namesake in the file still gives it, it takes."""
    keys = {_key(unit.path, leaf): leaf for leaf in unit.shapes}
    if unit.path in alignment.ambiguous:
        why = f"ambiguous: may be {' or '.join(alignment.ambiguous[unit.path][:4])} of the file"
    elif there is None:
        why = ""
    elif unit.path in used:
        why = f"{unit.path} of the file is {used[unit.path]} here"
    elif not unit.may_be(there):
        why = f"a {there.kind} in the file, a {unit.kind} here"
    else:
        common = there.shapes.keys() & unit.shapes.keys()
        differing = {leaf for leaf in common if there.shapes[leaf] != unit.shapes[leaf]}
        for key, leaf in keys.items():
            if leaf in differing:
                plan.mismatched[key] = Mismatch(there.shapes[leaf], unit.shapes[leaf])
            elif leaf in common and not differing:
                plan.origins[key] = key
            else:
                plan.missing[key] = _RESHAPED if leaf in common else ""
        return
    plan.missing |= dict.fromkeys(keys, why)


def _units(tensors: Mapping[str, Tensor], kinds: Mapping[str, str]) -> dict[str, Unit]:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, value in tensors.items():
        module, _, leaf = key.rpartition(".")
        shapes.setdefault(module, {})[leaf] = tuple(value.shape)
    return {path: Unit(path, held, kinds.get(path, "")) for path, held in shapes.items()}


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _key(module: str, leaf: str) -> str:
    return f"{module}.{leaf}" if module else leaf


# --- what is said and done ------------------------------------------------------------------------


def _report(plan: _Plan, source: Weights, skipped: Sequence[str]) -> LoadReport:
    reshaped = {key for key, why in plan.missing.items() if why == _RESHAPED}
    used = {*plan.origins.values(), *plan.mismatched, *reshaped}
    return LoadReport(
        file=source.name,
        kept=tuple(key for key, origin in plan.origins.items() if key == origin),
        moved={key: origin for key, origin in plan.origins.items() if key != origin},
        missing=plan.missing,
        mismatched=plan.mismatched,
        skipped=tuple(skipped),
        unexpected=tuple(key for key in source.tensors if key not in used),
        notes=(*source.notes, *plan.notes),
    )


def _misfit(report: LoadReport, net: nn.Module, here: Mapping[str, Tensor], source: Weights) -> str:
    missing = []
    for index, key in enumerate(report.missing):
        shape = tuple(here[key].shape)
        same = [other for other in report.unexpected if tuple(source.tensors[other].shape) == shape]
        near = closest(key, same, cutoff=0.3) if index < SHOWN else None
        missing.append(f"{key} {shape}" + (f" (the file has {near} of this shape)" if near else ""))
    unexpected = [f"{key} {tuple(source.tensors[key].shape)}" for key in report.unexpected]
    mismatched = [f"{key}: {shapes}" for key, shapes in report.mismatched.items()]
    bad = {*report.missing, *report.mismatched, *report.unexpected}
    odd = _roots(bad, {*here, *source.tensors} - bad)
    lines = [
        f"{report.file} does not fit {network_name(net)}: nothing was loaded",
        *(f"  {note}" for note in report.notes),
        *listed("missing in the file", missing, len(missing)),
        *listed("unexpected in the file", unexpected, len(unexpected)),
        *listed("of another shape", mismatched, len(mismatched)),
    ]
    if report.kept and len(odd) <= 4:
        new = f", and leaves {'it' if len(odd) == 1 else 'them'} new" if bad & here.keys() else ""
        skip = ", ".join(f'"{root}"' for root in odd)
        lines.append(f"  help: load_weights(..., skip=[{skip}]) loads the rest{new}")
    reshaped_only = not report.missing and not report.unexpected
    if reshaped_only and isinstance(net, Network) and "num_classes" in net.compilation.spec.params:
        lines.append(
            "  help: compiled with the file's `num_classes` it may fit; then "
            "net.reset_classifier(num_classes)"
        )
    lines.append(
        "  help: load_weights(..., transfer=True) carries over what an edit of the spec left as "
        "it was"
    )
    return "\n".join(lines)


def _roots(bad: Iterable[str], good: Iterable[str]) -> list[str]:
    """The fewest paths that hold all of the bad keys and none of the good."""
    held = {
        ".".join(parts[:end])
        for key in good
        for parts in [key.split(".")]
        for end in range(1, len(parts) + 1)
    }
    roots: dict[str, None] = {}
    for key in sorted(bad):
        parts = key.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        roots[next((path for path in paths if path not in held), key)] = None
    return list(roots)


def _copy(origins: Mapping[str, str], here: Mapping[str, Tensor], source: Weights) -> None:
    for key, origin in origins.items():
        there = source.tensors[origin]
        if here[key].is_meta:
            raise WeightsError(
                f"cannot load into `{key}`: it is on the meta device (net.to_empty(device=...) "
                f"first)"
            )
        if there.is_meta or there.layout is not torch.strided or there.is_quantized:
            raise WeightsError(
                f"cannot load `{origin}` of {source.name}: it is not an ordinary tensor with values"
            )
        if there.is_complex() and not here[key].is_complex():
            raise WeightsError(
                f"cannot load `{origin}` of {source.name}: it is complex, the network's is real"
            )
    with torch.no_grad():
        for key, origin in origins.items():
            here[key].copy_(source.tensors[origin])
