"""Networks with a few changed values and names: `check` accepts exactly what compiles and runs."""

from __future__ import annotations

from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from torch import nn

import cnngraph
from cnngraph.lowering.network import Network

from .network_specs import specs

OTHER_NAMES = ["weight", "bias", "class", "def", "self", "input", "x", "torch", "None", "len", "T",
               "0", "a.b", "v0", "v1.0", "part.v1", "logits", "."]  # fmt: skip
NAMES = st.sampled_from(
    [*sorted({*dir(nn.Module()), *dir(nn.Sequential()), *dir(Network)}), *OTHER_NAMES]
)
VALUES = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 7, 8, 16, -1, 0.5, 1e9, True, None, "same", [1, 2], "relu", "v0", "v1",
     "input", ".", "${in_channels}"]
)  # fmt: skip
LARGE = 10**7
"""Values in a network that take more than a moment to compute."""


@st.composite
def odd_specs(draw: st.DrawFn) -> str:
    """A network with a few changed values and names, which may or may not be valid."""
    document = yaml.safe_load(draw(specs()))
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(item, dict | list):
                visit(item)

    for key in ("graph", "input", "inputs", "outputs", "init", "blocks"):
        visit(document.get(key, []))
    for _ in range(draw(st.integers(1, 2))):
        holder, key = draw(st.sampled_from(places))
        item = holder.get(key) if isinstance(holder, dict) else dict(enumerate(holder)).get(key)
        change = draw(st.sampled_from(["name", "value", "value", "remove", "rename", "repeat"]))
        if change == "name" and isinstance(item, dict | str):
            kind = item if isinstance(item, str) else next(iter(item), "relu")
            arguments = {} if isinstance(item, str) else item.get(kind)
            if isinstance(arguments, dict):
                holder[key] = {kind: {**arguments, "name": draw(NAMES)}}
        elif change == "value" and not isinstance(item, dict | list):
            holder[key] = draw(VALUES)
        elif change == "remove" and isinstance(holder, dict):
            holder.pop(key, None)
        elif change == "rename" and isinstance(holder, dict) and key in holder:
            holder[draw(NAMES)] = holder.pop(key)
        elif change == "repeat" and isinstance(holder, list):
            holder.append(item)
    return yaml.safe_dump(document, sort_keys=False)


def check_odd_network(text: str) -> str:
    """`check` accepts exactly what compiles and runs, on both backends and for inference."""
    report = cnngraph.check(text)
    if not report.ok:
        for backend in ("eager", "fused"):
            try:
                cnngraph.compile(text, backend=backend)
            except cnngraph.SpecError:
                continue
            raise AssertionError(f"{backend} compiles what check refuses")
        return "refused"
    graph = report.graph
    assert graph is not None
    if sum(node.shape.elements for node in graph.nodes) > LARGE:
        return "large"
    inputs = [torch.randn(3, *shape) for shape in graph.inputs.values()]
    shapes: list[dict[str, tuple[int, ...]]] = []
    for backend in ("eager", "fused"):
        network = cnngraph.compile(text, backend=backend)
        for training in (True, False):
            shapes.append(shapes_of(network.train(training), inputs))
        shapes_of(network.eval().for_inference(), inputs)
    assert shapes[:2] == shapes[2:]
    values = graph.features or {"logits": graph.output}
    assert shapes[1] == {name: (3, *graph.shape_of(path)) for name, path in values.items()}
    return "accepted"


def shapes_of(network: nn.Module, inputs: list[torch.Tensor]) -> dict[str, tuple[int, ...]]:
    with torch.no_grad():
        results = network(*inputs)
    results = results if isinstance(results, dict) else {"logits": results}
    return {name: tuple(value.shape) for name, value in results.items()}
