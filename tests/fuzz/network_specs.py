"""Strategies of valid networks: all that the language can say, in any combination.

A network is a list of steps. `check` gives the shapes of the values so far, and the next step
chooses among those that fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from hypothesis import strategies as st

import cnngraph
from cnngraph.graph import Graph

from .network_parts import Parts, initial, joined

UNIT = "unit"
"""The name of a block that many networks have."""


@st.composite
def specs(draw: st.DrawFn) -> str:
    """A valid network of small maps, signals or volumes."""
    rank = draw(st.sampled_from([2, 2, 2, 2, 1, 3]))
    document = draw(documents(rank))
    blocks = tuple(document.get("blocks", ()))
    document["graph"] = graph = list(draw(Parts(rank, blocks=blocks).bodies(1)))
    named = [name for name in document.get("inputs", ["input"]) if name != "flat"]
    for number in range(draw(st.integers(0, 5))):
        name = f"{draw(st.sampled_from(['', '', '', 'part.']))}v{number}"
        so_far = State.of(document, named)
        step = draw(steps(so_far, Parts(rank, so_far.of_current_size(), blocks), name))
        if "share" in step and not cnngraph.check(text_of(document | {"graph": [*graph, step]})).ok:
            continue  # the weights do not fit, or a value that the shared part reads does not
        graph.append(step)
        if name in str(step) and "aux" not in step:
            named.append(name)
    document |= draw(outputs([name for name in named if "v" in name]))
    head = Parts(rank).head()
    if "flat" in document.get("inputs", ()):
        head += [{"concat": draw(joined(("flat",)))}, {"linear": 2}]
    graph += draw(st.sampled_from([[], [], head, [f"global_max_pool{rank}d"]]))
    return text_of(document)


@st.composite
def simple_specs(draw: st.DrawFn) -> str:
    """A network of maps with one input: a chain of composites, perhaps with a side head."""
    parts = Parts(2)
    graph = list(draw(parts.bodies()))
    if draw(st.booleans()):
        side = {"name": "side", "body": [*draw(parts.units()), "global_avg_pool2d", "flatten"]}
        graph.insert(draw(st.integers(0, len(graph))), {"aux": side})
    graph += draw(st.sampled_from([[], parts.head(), ["global_max_pool2d"]]))
    size = [draw(st.integers(1, 3)), draw(st.integers(5, 7)), draw(st.integers(5, 7))]
    return text_of({"cnngraph": 1, "name": "net", "input": size, "graph": graph})


def text_of(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False)


@st.composite
def documents(draw: st.DrawFn, rank: int) -> dict[str, Any]:
    """All of a document but its graph and outputs."""
    document: dict[str, Any] = {"cnngraph": 1, "name": "net"}
    size = [draw(st.integers(3, 5) if rank == 3 else st.integers(5, 7)) for _ in range(rank)]
    shapes = st.integers(1, 3).map(lambda channels: [channels, *size])
    names = draw(st.sampled_from([[], [], [], ["x"], ["rgb", "depth"], ["rgb", "flat"]]))
    if names:
        document["inputs"] = {name: [2] if name == "flat" else draw(shapes) for name in names}
    else:
        document["input"] = draw(shapes)
    if draw(st.booleans()):
        document["init"] = draw(initial(rank))
    if draw(st.booleans()):
        body = draw(Parts(rank).units("${width}"))
        document["blocks"] = {UNIT: {"params": {"width": None}, "body": body}}
    return document


@st.composite
def outputs(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    """The `outputs` of some documents: names of values, or other names for them."""
    if not names or not draw(st.booleans()):
        return {}
    chosen = draw(st.lists(st.sampled_from([*names, "."]), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()) and "." not in chosen:
        return {"outputs": chosen}
    return {"outputs": {f"out{index}": name for index, name in enumerate(chosen)}}


@dataclass(frozen=True)
class State:
    """The shapes of the current value and of named earlier values."""

    current: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, document: dict[str, Any], named: list[str]) -> State:
        graph = checked(text_of(document))
        known = {**graph.inputs, **{path: scope.shape for path, scope in graph.scopes.items()}}
        known |= {node.path: node.shape for node in graph.nodes}
        current = known[graph.output]
        return cls(tuple(current), {name: tuple(known[name]) for name in named})

    def of_current_size(self) -> tuple[str, ...]:
        size = self.current[1:]
        return tuple(name for name, shape in self.shapes.items() if shape[1:] == size)

    def of_current_shape(self) -> tuple[str, ...]:
        return tuple(name for name, shape in self.shapes.items() if shape == self.current)


def checked(text: str) -> Graph:
    report = cnngraph.check(text)
    assert report.graph is not None, "\n\n".join([text, *map(str, report.diagnostics)])
    return report.graph


@st.composite
def steps(draw: st.DrawFn, state: State, parts: Parts, name: str) -> dict[str, Any]:
    """A node after those of `state`; most have this name."""
    rank, every = parts.rank, list(state.shapes)
    kinds = ["body", "op", "aux", "from", "read", "share", "repeat", "alias"]
    kinds += ["concat"] * (2 * bool(parts.values)) + ["unit"] * len(parts.blocks)
    kinds += ["add", "multiply"] * bool(state.of_current_shape())
    # torch's avg_pool3d needs as many values as its window, whatever the padding.
    kinds += ["down"] * (min(state.current[1:]) > (4 if rank == 3 else 3))
    kinds += ["up"] * (rank == 2 and len(every) > 1)
    kind = draw(st.sampled_from(kinds))
    match kind:
        case "body":
            return {"sequential": {"name": name, "body": draw(parts.bodies())}}
        case "op":
            return with_arguments(draw(parts.ops()), name=name)
        case "aux":
            head = [*draw(parts.units()), *parts.head(2)]
            source = draw(st.sampled_from([{}, {"from": draw(st.sampled_from(every))}]))
            return {"aux": {"name": name, **source, "body": head if not source else parts.head(2)}}
        case "from":
            return {"from": draw(st.sampled_from(every))}
        case "read":
            op = draw(st.one_of(parts.conv(), parts.pool()))
            return with_arguments(op, name=name, **{"from": draw(st.sampled_from(every))})
        case "share":
            earlier = [value for value in every if "v" in value] or every
            return {"share": {"name": name, "of": draw(st.sampled_from(earlier))}}
        case "repeat":
            body = draw(parts.composites(1))
            return {"repeat": {"name": name, "times": draw(st.integers(1, 3)), "body": body}}
        case "alias":
            return {"identity": {"name": name}}
        case "unit":
            return {UNIT: {"name": name, "width": draw(st.integers(1, 4))}}
        case "concat":
            return {"concat": {"name": name, "with": draw(joined(parts.values))}}
        case "add" | "multiply":
            return {kind: {"name": name, "with": draw(joined(state.of_current_shape()))}}
        case "down":
            pool = {f"max_pool{rank}d": {"kernel_size": 3, "stride": 2, "padding": 1}}
            project = {"body": draw(parts.conv(3, stride=2)), "shortcut": "project"}
            options = [draw(parts.conv(stride=2)), pool, {"residual": project}]
            return with_arguments(draw(st.sampled_from(options)), name=name)
        case _:
            mode = draw(st.sampled_from(["nearest", "bilinear"]))
            return {"upsample": {"name": name, "like": draw(st.sampled_from(every)), "mode": mode}}


def with_arguments(node: Any, **more: Any) -> dict[str, Any]:
    """The node with more arguments; those of a node that has one without a name stay alone."""
    if isinstance(node, str):
        return {node: more}
    ((kind, arguments),) = node.items()
    if isinstance(arguments, dict):
        return {kind: arguments | more}
    return {"sequential": {**more, "body": [node]}}
