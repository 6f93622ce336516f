"""Loading of weights into a network: everything is checked before anything is copied."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from cnngraph.elaborate import elaborate_or_raise
from cnngraph.graph.alignment import Alignment, Unit, align, common
from cnngraph.graph.patterns import matches
from cnngraph.lowering.network import Network
from cnngraph.weights.files import (
    COUNT,
    Weights,
    from_mapping,
    module_kinds,
    network_name,
    read_weights,
    unusual,
)
from cnngraph.weights.input_channels import adapt, stems
from cnngraph.weights.patterns import as_patterns, require_match, unwrapped
from cnngraph.weights.report import SHOWN, LoadReport, Mismatch, WeightsError, closest, listed

WRAPPERS = {"module.": "DataParallel or DistributedDataParallel", "_orig_mod.": "torch.compile"}
"""Prefixes that wrappers of a network add to all keys -> the wrapper."""

RENAMINGS: Mapping[str, tuple[str, str]] = {
    "DenseNet's older keys": (r"^(.*\.?denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$", r"\1\2"),
}
"""Older keys of published files: pattern and replacement, used if the results are known keys."""

_COUNTER = "num_batches_tracked"
_RESHAPED = "its module has another shape"


def load_weights(
    net: nn.Module,
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    strict: bool = True,
    transfer: bool = False,
    skip: str | Sequence[str] = (),
    key: str | None = None,
    in_channels: Literal["sum", "repeat"] | None = None,
) -> LoadReport:
    """Loads weights and buffers into a network in place, with the dtypes and devices it has.

    Everything is checked before anything is copied: the network is unchanged after an error. A
    network compiled with `outputs` loads its part of a file of the whole network.

    Args:
        net: the network.
        weights: a safetensors file, a file by `torch.save` (a state dict, or a checkpoint that
            contains one), or such a dict.
        strict: whether the network and the file must contain the same tensors. If not, common
            tensors are loaded, except for modules with any tensor of another shape.
        transfer: match the modules of an edited network with those of the file, by place and
            shapes. Nothing is required to match then; the report lists every tensor.
        skip: patterns of tensors or modules that are not loaded, such as `["fc"]`.
        key: the entry of a checkpoint to load, such as `"state_dict_ema"`.
        in_channels: how the first convolution adapts to another number of input channels, as in
            timm: `"sum"` adds its weights up for one channel, `"repeat"` repeats them, scaled, for
            several.

    Returns:
        What was loaded from where, and what was not and why; `print` it.

    Raises:
        WeightsError: the file cannot be read, does not fit (see its `report`), nothing can be
            loaded, or a pattern in `skip` matches nothing.
    """
    net = unwrapped(net)
    here: dict[str, Tensor] = {
        name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)
    }
    source = _without_count(_read(weights, key), here)
    source = _renamed(_without_prefixes(source, here), here)
    patterns = as_patterns(skip)
    for pattern in patterns:
        require_match(pattern, [*here, *source.tensors])
    skipped = _matching(here, patterns)
    wanted = {name: value for name, value in here.items() if name not in skipped}
    aside = _matching(source.tensors, patterns) | _of_the_rest(net, source.tensors)
    rest = {name: value for name, value in source.tensors.items() if name not in aside}
    source = replace(source, tensors=rest)
    if in_channels is not None:
        source = adapt(net, wanted, source, in_channels)
    wanted, source = _without_counters(wanted, source)

    if transfer:
        plan = _by_place(wanted, source, module_kinds(net, wanted))
    else:
        plan = _by_name(wanted, source, whole_modules=not strict)
    report = _report(plan, source, [name for name in here if name in skipped])
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
    """Key here -> the key of the file to load, or why it is not loaded."""

    origins: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    mismatched: dict[str, Mismatch] = field(default_factory=dict[str, Mismatch])
    notes: list[str] = field(default_factory=list[str])


# --- the keys of the file -------------------------------------------------------------------------


def _read(weights: str | os.PathLike[str] | Mapping[str, Tensor], key: str | None) -> Weights:
    if isinstance(weights, Mapping):
        return from_mapping(weights, "the state dict", key)
    return read_weights(weights, key)


def _without_count(source: Weights, here: Mapping[str, Tensor]) -> Weights:
    if COUNT in here or COUNT not in source.tensors:
        return source
    return replace(
        source,
        tensors={key: value for key, value in source.tensors.items() if key != COUNT},
        notes=(*source.notes, f"ignored `{COUNT}` of an averaged model"),
    )


def _without_prefixes(source: Weights, here: Mapping[str, Tensor]) -> Weights:
    """The file without the prefix of all its keys that keeps them from matching the network's."""
    modules = [_module(key).split(".") for key in source.tensors if "." in key]
    if not modules or len(modules) < len(source.tensors):
        return source
    shared = common(min(modules), max(modules))
    prefixes = ["".join(f"{name}." for name in modules[0][:end]) for end in range(shared + 1)]

    def known(prefix: str) -> int:
        return sum(key.removeprefix(prefix) in here for key in source.tensors)

    prefix = max(prefixes, key=known)  # the shortest of the best
    if not known(prefix):
        prefix = next(p for p in reversed(prefixes) if _is_of_wrappers(p))
    if not prefix:
        return source
    parts = [f"{name}." for name in prefix.split(".")[:-1]]
    return replace(
        source,
        tensors={key.removeprefix(prefix): value for key, value in source.tensors.items()},
        kinds={path.removeprefix(prefix): kind for path, kind in source.kinds.items()},
        notes=(
            *source.notes,
            *(
                f"removed the prefix `{part}`"
                + (f" of {WRAPPERS[part]}" if part in WRAPPERS else "")
                for part in parts
            ),
        ),
    )


def _is_of_wrappers(prefix: str) -> bool:
    return all(f"{name}." in WRAPPERS for name in prefix.split(".")[:-1])


def _renamed(source: Weights, here: Mapping[str, Tensor]) -> Weights:
    for title, (pattern, replacement) in RENAMINGS.items():
        names = {key: key if key in here else re.sub(pattern, replacement, key)
                 for key in source.tensors}  # fmt: skip
        changed = {key: name for key, name in names.items() if key != name}
        unique = len(set(names.values())) == len(names)
        if unique and any(name in here for name in changed.values()):
            first, name = next(iter(changed.items()))
            note = f"{title}: renamed {len(changed)}, for example {first} to {name}"
            source = replace(
                source,
                tensors={names[key]: value for key, value in source.tensors.items()},
                notes=(*source.notes, note),
            )
    return source


def _without_counters(
    wanted: dict[str, Tensor], source: Weights
) -> tuple[dict[str, Tensor], Weights]:
    """Batch norms had no counter before torch 0.4.1: files from before then fit without it."""
    counters = [key for key in wanted if key.endswith(f".{_COUNTER}")]
    if not counters or any(key.endswith(f".{_COUNTER}") for key in source.tensors):
        return wanted, source
    if not any(key.endswith(".running_mean") for key in source.tensors):
        return wanted, source
    note = f"no {_COUNTER} in the file, as before torch 0.4.1: {len(counters)} are unchanged"
    rest = {key: value for key, value in wanted.items() if key not in set(counters)}
    return rest, replace(source, notes=(*source.notes, note))


def _matching(keys: Iterable[str], patterns: Sequence[str]) -> set[str]:
    return {key for key in keys if any(matches(key, pattern) for pattern in patterns)}


def _of_the_rest(net: nn.Module, keys: Iterable[str]) -> set[str]:
    """Keys of the part of the spec that a network compiled with `outputs` leaves out."""
    if not isinstance(net, Network) or not net.compilation.options.outputs:
        return set()
    whole = elaborate_or_raise(net.compilation.spec, net.compilation.params)
    rest = whole.by_path.keys() - net.compilation.graph.by_path.keys()
    return {key for key in keys if key in rest or _module(key) in rest}


# --- matching -------------------------------------------------------------------------------------


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
            "the file does not record the order of its modules: fewer moves can be found"
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
    """Records why a module has no origin; loads what fits from the same path of the file."""
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
        shared = there.shapes.keys() & unit.shapes.keys()
        differing = {leaf for leaf in shared if there.shapes[leaf] != unit.shapes[leaf]}
        for key, leaf in keys.items():
            if leaf in differing:
                plan.mismatched[key] = Mismatch(there.shapes[leaf], unit.shapes[leaf])
            elif leaf in shared and not differing:
                plan.origins[key] = key
            else:
                plan.missing[key] = _RESHAPED if leaf in shared else ""
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


# --- results --------------------------------------------------------------------------------------


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
    missing: list[str] = []
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
        new = ", and leaves them unchanged" if bad & here.keys() else ""
        skip = ", ".join(f'"{root}"' for root in odd)
        lines.append(f"  help: load_weights(..., skip=[{skip}]) loads the rest{new}")
    reads_input = stems(net, report.mismatched)
    if reads_input:
        way = "sum" if here[reads_input[0]].shape[1] == 1 else "repeat"
        lines.append(f'  help: load_weights(..., in_channels="{way}") adapts {reads_input[0]}')
    classes = _other_classes(net, report.mismatched)
    if classes is not None:
        lines.append(
            f'  help: compile with params={{"num_classes": {classes[0]}}} to load the file, then'
            f" call net.reset_classifier({classes[1]})"
        )
    explained = (classes is not None) + len(reads_input)
    if report.missing or report.unexpected or not explained:
        lines.append("  help: load_weights(..., transfer=True) loads what an edit left unchanged")
    return "\n".join(lines)


def _other_classes(net: nn.Module, mismatched: Mapping[str, Mismatch]) -> tuple[int, int] | None:
    """The number of classes in the file and here, if only that sets a mismatched tensor apart."""
    if not isinstance(net, Network) or "num_classes" not in net.compilation.spec.params:
        return None
    graph = net.compilation.graph
    classes = graph.by_path[graph.output].shape.channels
    return next(
        (
            (there[0], classes)
            for there, here in mismatched.values()
            if here[:1] == (classes,) and there[1:] == here[1:] and there != here
        ),
        None,
    )


def _roots(bad: Iterable[str], good: Iterable[str]) -> list[str]:
    """The fewest paths that contain all of the bad keys and none of the good."""
    containing = {
        ".".join(parts[:end])
        for key in good
        for parts in [key.split(".")]
        for end in range(1, len(parts) + 1)
    }
    roots: dict[str, None] = {}
    for key in sorted(bad):
        parts = key.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        roots[next((path for path in paths if path not in containing), key)] = None
    return list(roots)


def _copy(origins: Mapping[str, str], here: Mapping[str, Tensor], source: Weights) -> None:
    for key, origin in origins.items():
        there = source.tensors[origin]
        if here[key].is_meta:
            raise WeightsError(
                f"cannot load into `{key}`: it is on the meta device (call net.to_empty(device=...)"
                " first)"
            )
        if reason := unusual(there):
            raise WeightsError(f"cannot load `{origin}` of {source.name}: it {reason}")
    with torch.no_grad():
        for key, origin in origins.items():
            here[key].copy_(source.tensors[origin])
