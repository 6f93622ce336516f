"""What must hold for every network: generated ones for the compiler, damaged texts for the
checker."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import yaml
from conftest import SPECS, value_shapes
from fuzz.documents import ANY_NODES, SMALL, check_within_reason, damages, documents_of
from fuzz.network_specs import simple_specs
from fuzz.networks import Reference, one_step, randomized
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import cnngraph
from cnngraph.graph import Graph
from cnngraph.passes import PASSES, run_passes

generated = settings(
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


pytestmark = pytest.mark.usefixtures("one_thread")


# --- generated networks -------------------------------------------------------------------------


def checked(text: str) -> Graph:
    report = cnngraph.check(text)
    assert report.ok, "\n\n".join([text, *map(str, report.diagnostics)])
    assert report.graph is not None
    return report.graph


@generated
@given(simple_specs())
def test_the_graph_of_a_valid_spec_verifies_before_and_after_the_passes(text: str) -> None:
    graph = checked(text)
    graph.verify()
    fused, _ = run_passes(graph, PASSES)
    assert {n.path for n in fused.leaves()} - {n.path for n in graph.nodes} <= {"(channels_last)"}
    assert {n.path for n in fused.leaves()} >= {n.path for n in graph.nodes}
    assert fused.output == graph.output
    assert fused.shape_of(fused.output) == graph.shape_of(graph.output)


@generated
@given(simple_specs())
def test_block_and_flow_style_give_the_same_graph(text: str) -> None:
    flow = yaml.safe_dump(yaml.safe_load(text), default_flow_style=True, width=80)
    assert str(checked(flow)) == str(checked(text))


@generated
@given(simple_specs())
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


@generated
@given(simple_specs(), st.booleans(), st.integers(0, 2**16))
def test_fused_equals_eager(text: str, training: bool, seed: int) -> None:
    """In float64: results, all gradients, running statistics; and one state_dict for both."""
    graph = checked(text)
    torch.manual_seed(seed)
    eager = cnngraph.compile(text, backend="eager").double()
    randomized(eager)
    fused = cnngraph.compile(text, backend="fused").double()
    assert list(fused.state_dict()) == list(eager.state_dict())
    inputs = [torch.randn(6, *graph.input, dtype=torch.float64)]
    Reference(eager.train(training), inputs, one_step).require(fused, text)


@generated
@given(simple_specs())
def test_a_copy_computes_the_same(text: str) -> None:
    network = cnngraph.compile(text).double().eval()
    x = torch.randn(2, *checked(text).input, dtype=torch.float64)
    torch.testing.assert_close(
        copy.deepcopy(network)(x), network(x), rtol=0, atol=0, equal_nan=True
    )


# --- damaged texts ------------------------------------------------------------------------------

VALID = [path.read_text() for path in sorted([*SPECS.glob("*.yaml"), *SPECS.glob("blocks/*.yaml")])]
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


@settings(damaged, max_examples=200)
@given(ANY_NODES, ANY_NODES)
def test_any_data_in_the_place_of_nodes_is_checked_without_an_exception(
    graph: Any, block: Any
) -> None:
    check_within_reason(documents_of(graph, block))
