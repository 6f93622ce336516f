"""What must hold for every network: generated ones for the compiler, damaged texts for the
checker."""

from __future__ import annotations

import copy
import resource
from typing import Any

import pytest
import torch
import yaml
from conftest import SPECS, value_shapes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import cnngraph
from cnngraph.graph import Graph
from cnngraph.passes import PASSES, run_passes

CPU_SECONDS = 10
"""A check of a small spec takes milliseconds of processor time; this is three orders above."""

generated = settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


pytestmark = pytest.mark.usefixtures("one_thread")


# --- generated networks -------------------------------------------------------------------------

FUSABLE = [
    "relu", "relu6", "leaky_relu", "elu", "gelu", {"gelu": {"approximate": "tanh"}}, "silu", "mish",
    "sigmoid", "tanh", "hardswish", "hardsigmoid", {"hardtanh": {"min_val": -0.5, "max_val": 0.75}},
    {"leaky_relu": 0.3}, {"elu": {"alpha": 0.5}},
]  # fmt: skip
ACTIVATIONS = st.sampled_from([*FUSABLE, "prelu", "selu", "softplus", "identity"])

NORMS = st.one_of(
    st.just("batch_norm"),
    st.fixed_dictionaries(
        {
            "batch_norm": st.fixed_dictionaries(
                {},
                optional={
                    "eps": st.sampled_from([1e-3, 0.1]),
                    "momentum": st.sampled_from([None, 0.0, 0.5, 1.0]),
                    "affine": st.booleans(),
                    "track_running_stats": st.booleans(),
                },
            )
        }
    ),
)


@st.composite
def convolutions(draw: st.DrawFn, channels: int | None = None, stride: int = 1) -> dict[str, Any]:
    """One that keeps the size of the map (but for its stride), with `channels` or any number."""
    kernel = draw(st.sampled_from([1, 3]))
    arguments = {
        "out_channels": channels or draw(st.integers(1, 5)),
        "kernel_size": kernel,
        "padding": kernel // 2,
        "stride": stride,
        "bias": draw(st.booleans()),
    }
    return {"conv2d": arguments}


KEEPING_POOLS = st.sampled_from(
    [
        {"max_pool2d": {"kernel_size": 3, "stride": 1, "padding": 1}},
        {"avg_pool2d": {"kernel_size": 3, "stride": 1, "padding": 1}},
    ]
)


def units(channels: int | None = None) -> st.SearchStrategy[list]:
    """Runs of nodes that keep the size; with `channels`, they end with that many."""
    first = st.one_of(NORMS, ACTIVATIONS, KEEPING_POOLS, convolutions())
    runs = st.lists(st.one_of(first, st.tuples(NORMS, ACTIVATIONS).map(list)), max_size=3)
    ends = st.lists(st.one_of(NORMS, ACTIVATIONS), max_size=2)
    if channels is None:
        return st.tuples(runs, ends).map(lambda parts: [*parts[0], *parts[1]] or ["relu"])
    return st.tuples(runs, convolutions(channels), ends).map(lambda p: [*p[0], p[1], *p[2]])


DEPTH = 2
"""How deep composites may lie in each other."""


@st.composite
def composites(draw: st.DrawFn, depth: int) -> Any:
    kind = draw(
        st.sampled_from(
            ["list", "sequential", "concat", "add", "gate", "residual", "project", "dense", "repeat"]
        )
    )  # fmt: skip
    inner = bodies(depth - 1)
    if kind == "list":
        return draw(inner)
    if kind == "sequential":
        return {"sequential": draw(inner)}
    if kind == "concat":
        branches = draw(st.lists(inner, min_size=1, max_size=3))
        if draw(st.booleans()):
            return {"parallel": {f"b{index}": body for index, body in enumerate(branches)}}
        return {"parallel": branches}
    if kind == "add":
        channels = draw(st.integers(1, 4))
        branches = draw(st.lists(units(channels), min_size=2, max_size=3))
        return {"parallel": {"merge": "add", "branches": branches}}
    if kind == "gate":
        gate = [
            "global_avg_pool2d",
            {"conv2d": {"out_channels": "${in_channels}", "kernel_size": 1}},
            "sigmoid",
        ]
        return {"parallel": {"merge": "multiply", "branches": ["identity", gate]}}
    if kind == "residual":
        keep = convolutions().map(
            lambda c: {"conv2d": {**c["conv2d"], "out_channels": "${in_channels}"}}
        )
        body = draw(st.lists(st.one_of(NORMS, ACTIVATIONS, keep), min_size=1, max_size=4))
        scale = draw(st.sampled_from([1.0, 0.5]))
        return {"residual": {"body": body, "scale": scale}}
    if kind == "project":
        channels = draw(st.integers(1, 4))
        strides = [1, 2] if depth == DEPTH else [1]  # branches must keep the size of the map
        body = [
            draw(convolutions(channels, stride=draw(st.sampled_from(strides)))),
            *draw(units(channels)),
        ]
        return {"residual": {"body": body, "shortcut": "project"}}
    if kind == "dense":
        return {
            "dense": {
                "layers": draw(st.integers(1, 3)),
                "body": draw(units(draw(st.integers(1, 3)))),
            }
        }
    return {"repeat": {"times": draw(st.integers(0, 3)), "body": draw(inner)}}


def bodies(depth: int) -> st.SearchStrategy[list]:
    if depth == 0:
        return units()
    return st.lists(st.one_of(units(), composites(depth)), min_size=1, max_size=3)


@st.composite
def specs(draw: st.DrawFn) -> str:
    """A valid network of small maps, which stay at least 5x5 before the strides of projections."""
    graph = list(draw(bodies(DEPTH)))
    if draw(st.booleans()):
        graph.insert(
            draw(st.integers(0, len(graph))),
            {"aux": {"name": "side", "body": [*draw(units()), "global_avg_pool2d", "flatten"]}},
        )
    head = [[], ["global_avg_pool2d", "flatten", {"linear": 3}], ["global_max_pool2d"]]
    graph += draw(st.sampled_from(head))
    size = [draw(st.integers(1, 3)), draw(st.integers(5, 7)), draw(st.integers(5, 7))]
    document = {"cnngraph": 1, "name": "net", "input": size, "graph": graph}
    return yaml.safe_dump(document, sort_keys=False)


def checked(text: str) -> Graph:
    report = cnngraph.check(text)
    assert report.ok, "\n\n".join([text, *map(str, report.diagnostics)])
    assert report.graph is not None
    return report.graph


@generated
@given(specs())
def test_the_graph_of_a_valid_spec_verifies_before_and_after_the_passes(text: str) -> None:
    graph = checked(text)
    graph.verify()
    fused, _ = run_passes(graph, PASSES)
    assert {n.path for n in fused.leaves()} - {n.path for n in graph.nodes} <= {"(channels_last)"}
    assert {n.path for n in fused.leaves()} >= {n.path for n in graph.nodes}
    assert fused.output == graph.output
    assert fused.shape_of(fused.output) == graph.shape_of(graph.output)


@generated
@given(specs())
def test_block_and_flow_style_give_the_same_graph(text: str) -> None:
    flow = yaml.safe_dump(yaml.safe_load(text), default_flow_style=True, width=80)
    assert str(checked(flow)) == str(checked(text))


@generated
@given(specs())
def test_shapes_are_those_of_torch_on_the_meta_device(text: str) -> None:
    graph = checked(text)
    network = cnngraph.compile(text, backend="eager")
    shapes = value_shapes(network, graph.input)
    expected: list[tuple[int, ...]] = []
    for node in graph.nodes:
        if not node.aux:  # a sum of three values is two additions
            steps = len(node.inputs) - 1 if node.op.kind in ("add", "multiply") else 1
            expected += [tuple(node.shape)] * steps
    assert shapes == expected
    if graph.aux:
        for module in network.train().modules():
            if isinstance(module, nn.BatchNorm2d):
                # torch reads a counter's value for None, which meta tensors lack
                module.momentum = 0.1
        results = network(torch.empty(2, *graph.input, device="meta"))
        for name, path in graph.aux.items():
            assert tuple(results[name].shape) == (2, *graph.shape_of(path))


def one_step(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    results = network(x)
    if isinstance(results, torch.Tensor):
        results = {"logits": results}
    weights = (
        torch.linspace(0.5, 1.5, r.numel(), dtype=r.dtype).view_as(r) for r in results.values()
    )
    loss = torch.stack(
        [(r * w).sum() for r, w in zip(results.values(), weights, strict=True)]
    ).sum()
    loss.backward()
    assert x.grad is not None or not x.requires_grad
    found = {f"result {name}": value.detach() for name, value in results.items()}
    found["gradient of the input"] = x.grad if x.grad is not None else torch.zeros_like(x)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad
    return found | dict(network.named_buffers())


@generated
@given(specs(), st.booleans(), st.integers(0, 2**16))
def test_fused_equals_eager(text: str, training: bool, seed: int) -> None:
    """In float64: results, all gradients, running statistics; and one state_dict for both."""
    graph = checked(text)
    torch.manual_seed(seed)
    eager = cnngraph.compile(text, backend="eager").double()
    with torch.no_grad():
        for name, value in eager.state_dict().items():
            if value.is_floating_point():  # a batch norm of ones and zeros would hide mistakes
                value.uniform_(0.5, 1.5) if name.endswith("_var") else value.add_(
                    torch.rand_like(value) / 2
                )
    fused = cnngraph.compile(text, backend="fused").double()
    assert list(fused.state_dict()) == list(eager.state_dict())
    fused.load_state_dict(eager.state_dict(), strict=True)
    x = torch.randn(6, *graph.input, dtype=torch.float64)
    found, expected = (one_step(network.train(training), x) for network in (fused, eager))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Rounding, as magnified by batch norms over a map of little variance.
        scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
        torch.testing.assert_close(
            found[name], value, rtol=1e-6, atol=1e-7 * scale, equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}\n{text}",
        )  # fmt: skip


@generated
@given(specs())
def test_a_copy_computes_the_same(text: str) -> None:
    network = cnngraph.compile(text).double().eval()
    x = torch.randn(2, *checked(text).input, dtype=torch.float64)
    torch.testing.assert_close(
        copy.deepcopy(network)(x), network(x), rtol=0, atol=0, equal_nan=True
    )


# --- damaged texts ------------------------------------------------------------------------------

VALID = [path.read_text() for path in sorted([*SPECS.glob("*.yaml"), *SPECS.glob("blocks/*.yaml")])]
SMALL = """\
cnngraph: 1
name: net
input: [3, 16, 16]
params: {width: 4, act: relu, depths: [1, 2]}
blocks:
  unit:
    params: {width: ~, stride: 1}
    body:
      - conv2d: {name: conv, out_channels: "${width}", kernel_size: 3, stride: "${stride}", padding: 1}
      - batch_norm: {name: bn}
      - ${act}
graph:
  - unit: {name: stem, width: "${width}"}
  - repeat:
      over: ${depths}
      as: depth
      index: stage
      body:
        repeat:
          name: layer${stage}
          times: ${depth}
          body:
            - residual:
                name: block${i}
                body: [unit: {name: a, width: "${width * 2 ** stage}", stride: "${2 if i == 0 else 1}"}]
                shortcut: project
  - aux: {name: side, body: [global_avg_pool2d, flatten, linear: 2]}
  - parallel: {name: gate, merge: multiply, branches: [identity, [global_avg_pool2d, sigmoid]]}
  - dense: {name: dense, layers: 2, body: [conv2d: {name: "c${i}", out_channels: 2, kernel_size: 1}]}
  - concat: {name: join, with: dense}
  - flatten
  - linear: 10
expect: {shapes: {stem: [4, 16, 16]}}
"""

SNIPPETS = st.sampled_from(
    ["${", "}", "[", "]", "{", ": ", "- ", "~", "&a ", "*a", "!!python/object:os.system ", "\t", "\x00",
     "'", '"', "\n", "#", "|", ">", "%", "999999999", "-1", "1e999", ".nan", "0x10", "${in_channels}",
     "${10 ** 10 ** "
     "10}", "${'a' * 10000000}", "${[0] * 9}", "${range(10**9)}", "null", "name", "é", "\U0001f600", "<<: ",
     "${width", "${(((((1)))))}", "with: stem", "../../etc", "\u2028", "\ufeff", "---\n"]
)  # fmt: skip


@st.composite
def damages(draw: st.DrawFn, text: str) -> str:
    """The text after a few deletions, duplications, swaps and insertions, of characters or of
    lines."""
    for _ in range(draw(st.integers(1, 3))):
        by_line = draw(st.booleans())
        items = text.splitlines(keepends=True) if by_line else list(text)
        if not items:
            break
        here = draw(st.integers(0, len(items) - 1))
        there = min(len(items), here + draw(st.integers(1, 4)))
        match draw(st.sampled_from(["delete", "duplicate", "swap", "insert", "indent"])):
            case "delete":
                del items[here:there]
            case "duplicate":
                items[here:here] = items[here:there]
            case "swap":
                other = draw(st.integers(0, len(items) - 1))
                items[here], items[other] = items[other], items[here]
            case "insert":
                items.insert(here, draw(SNIPPETS))
            case "indent":
                items.insert(here, " " * draw(st.integers(1, 4)))
        text = "".join(items)
    return text


def check_within_reason(text: str) -> None:
    """Checks a text, whatever it is; the limit stops it where it would never end."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    report = cnngraph.check(text + "\n")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
    assert report.graph is not None if report.ok else report.diagnostics
    for diagnostic in report.diagnostics:
        assert str(diagnostic).startswith(("error[", "warning["))
        diagnostic.to_dict()
    assert used < CPU_SECONDS


damaged = settings(generated, max_examples=250)


def test_the_texts_to_damage_are_valid() -> None:
    assert cnngraph.check(SMALL).ok


@damaged
@given(damages(SMALL))
def test_damaged_spec_raises_no_exception(text: str) -> None:
    check_within_reason(text)


@settings(damaged, max_examples=120)
@given(st.sampled_from(VALID).flatmap(damages))
def test_damaged_shipped_specs_are_checked_without_an_exception(text: str) -> None:
    check_within_reason(text)


@settings(damaged, max_examples=150)
@given(st.text(max_size=60))
def test_any_text_is_checked_without_an_exception(text: str) -> None:
    check_within_reason(text)


WORDS = ["conv2d", "relu", "batch_norm", "residual", "parallel", "repeat", "dense", "aux", "concat", "linear",
         "flatten", "sequential", "name", "body", "with", "times", "over", "as", "layers", "out_channels", "kernel_size",
         "branches", "merge", "shortcut", "project", "scale", "index", "stride", "padding", "${i}", "${in_channels}", "a"]  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70000),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=5),
)
ANY_NODES = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=25,
)


@settings(damaged, max_examples=200)
@given(ANY_NODES, ANY_NODES)
def test_any_data_in_the_place_of_nodes_is_checked_without_an_exception(
    graph: Any, block: Any
) -> None:
    document = {
        "cnngraph": 1, "name": "net", "input": [4, 8, 8],
        "blocks": {"a": {"body": block}}, "graph": [graph, "a", graph],
    }  # fmt: skip
    check_within_reason(yaml.safe_dump(document, allow_unicode=True))
