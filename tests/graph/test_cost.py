"""Costs and shapes, held against figures worked out by hand."""

from __future__ import annotations

import textwrap

import pytest

import cnngraph
from cnngraph.graph import Graph
from cnngraph.graph.cost import Cost, Summary, cost_of, node_cost, shape_at, summarize
from cnngraph.passes import PASSES, run_passes


def graph_of(body: str, input: str = "[3, 8, 8]", head: str = "") -> Graph:
    nodes = textwrap.indent(textwrap.dedent(body).strip(), "  ")
    head = textwrap.dedent(head)
    report = cnngraph.check(f"cnngraph: 1\nname: net\ninput: {input}\n{head}graph:\n{nodes}\n")
    assert report.ok, "\n".join(map(str, report.diagnostics))
    assert report.graph is not None
    return report.graph


def summary(body: str, input: str = "[3, 8, 8]", head: str = "") -> Summary:
    return summarize(graph_of(body, input, head))


@pytest.mark.parametrize(
    ("node", "input", "expected"),
    [
        # 16 kernels of 3x3x3 and 16 biases; each of the 16x8x8 results takes 27 products.
        (
            "conv2d: {out_channels: 16, kernel_size: 3, padding: 1}",
            "[3, 8, 8]",
            Cost(16 * 27 + 16, 0, 16 * 64 * 27),
        ),
        (
            "conv2d: {out_channels: 16, kernel_size: 3, padding: 1, bias: false}",
            "[3, 8, 8]",
            Cost(16 * 27, 0, 16 * 64 * 27),
        ),
        # Strides halve both sides of the result; 1x5 windows see 5 values of each of 4 channels.
        (
            "conv2d: {out_channels: 2, kernel_size: [1, 5], stride: 2, padding: [0, 2]}",
            "[4, 8, 6]",
            Cost(2 * 20 + 2, 0, 2 * 4 * 3 * 20),
        ),
        # Depthwise: each result sees one channel only.
        (
            "conv2d: {out_channels: 8, kernel_size: 3, padding: 1, groups: 4, bias: false}",
            "[4, 8, 8]",
            Cost(8 * 9, 0, 8 * 64 * 9),
        ),
        # Transposed: each of the 4x8x8 inputs is spread over 2x2 pixels of 6 / 2 channels.
        (
            "conv_transpose2d: {out_channels: 6, kernel_size: 2, stride: 2, groups: 2}",
            "[4, 8, 8]",
            Cost(4 * 3 * 4 + 6, 0, 4 * 64 * 3 * 4),
        ),
        ("linear: 10", "[7]", Cost(7 * 10 + 10, 0, 70)),
        ("linear: {out_features: 10, bias: false}", "[7]", Cost(70, 0, 70)),
        ("batch_norm", "[5, 8, 8]", Cost(10, 3, 0)),
        ("batch_norm: {affine: false}", "[5]", Cost(0, 3, 0)),
        ("batch_norm: {track_running_stats: false}", "[5]", Cost(10, 0, 0)),
        ("layer_norm: {bias: false}", "[5, 8, 8]", Cost(5, 0, 0)),
        ("group_norm: 2", "[6, 8, 8]", Cost(12, 0, 0)),
        ("prelu: ${in_channels}", "[6, 8, 8]", Cost(6, 0, 0)),
        ("layer_scale", "[6, 8, 8]", Cost(6, 0, 0)),
        ("normalize: {mean: [1, 2], std: [1, 2]}", "[2, 8, 8]", Cost(0, 0, 0)),
        ("max_pool2d: 2", "[6, 8, 8]", Cost(0, 0, 0)),
        ("relu", "[6, 8, 8]", Cost(0, 0, 0)),
    ],
)
def test_costs_of_one_node(node: str, input: str, expected: Cost) -> None:
    graph = graph_of(f"- {node}", input)
    assert node_cost(graph, graph.nodes[0]) == expected
    assert summarize(graph).total == expected


def test_costs_are_those_of_the_modules_built() -> None:
    body = """
        - conv2d: {out_channels: 6, kernel_size: 3}
        - batch_norm
        - prelu
        - conv_transpose2d: {out_channels: 4, kernel_size: 2}
        - layer_norm
        - flatten
        - linear: 3
    """
    nodes = textwrap.indent(textwrap.dedent(body).strip(), "  ")
    network = cnngraph.compile(f"cnngraph: 1\nname: net\ninput: [3, 8, 8]\ngraph:\n{nodes}\n")
    total = summary(body).total
    assert total.params == sum(parameter.numel() for parameter in network.parameters())
    assert total.buffers == len(list(network.buffers()))


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)


LENET_LIKE = """
    - conv2d: {name: conv, out_channels: 6, kernel_size: 5, padding: 2}
    - relu
    - max_pool2d: 2
    - flatten
    - linear: {name: fc, out_features: 10}
"""


def test_a_small_network_by_hand() -> None:
    found = summary(LENET_LIKE, "[1, 28, 28]")
    conv, fc = (6 * 25 + 6, 6 * 28 * 28 * 25), (6 * 14 * 14 * 10 + 10, 6 * 14 * 14 * 10)
    assert found.total == Cost(conv[0] + fc[0], 0, conv[1] + fc[1])
    assert found.training_macs == found.total.macs


def test_shared_weights_count_once() -> None:
    conv = "    - conv2d: {name: conv, out_channels: 3, kernel_size: 3, padding: 1}\n"
    norm = "    - batch_norm: {name: norm}\n"
    own, shared = (
        summary(conv + norm),
        summary(conv + norm + "    - share: conv\n    - share: norm"),
    )
    assert shared.total.params == own.total.params == 3 * (3 * 9 + 1) + 2 * 3
    assert shared.total.buffers == own.total.buffers == 3
    assert shared.total.macs == 2 * own.total.macs


SIDE_HEADED = """
    - conv2d: {name: stem, out_channels: 4, kernel_size: 1, bias: false}
    - aux:
        name: side
        body:
          - conv2d: {name: conv, out_channels: 2, kernel_size: 1, bias: false}
          - batch_norm: {name: bn}
          - global_avg_pool2d
          - flatten
          - linear: {name: fc, out_features: 5, bias: false}
    - flatten
    - linear: {name: fc, out_features: 3, bias: false}
"""


def test_side_heads_cost_parameters_always_and_macs_in_training_only() -> None:
    found = summary(SIDE_HEADED)
    stem, side, fc = 4 * 3 * 64, 2 * 4 * 64 + 2 * 5, 4 * 64 * 3
    assert found.total.macs == stem + fc
    assert found.training_macs == stem + side + fc
    assert found.total.params == 4 * 3 + (2 * 4 + 2 * 2 + 2 * 5) + 4 * 64 * 3
    assert found.total.buffers == 3


BLOCK = """
blocks:
  unit:
    params: {width: ~}
    body:
      - conv2d: {name: conv, out_channels: "${width}", kernel_size: 1, bias: false}
      - relu
"""

STAGED = """
    - unit: {name: stem, width: 4}
    - repeat:
        name: layer
        times: 3
        body:
          residual:
            body:
              - unit: {name: a, width: 8}
              - repeat: {name: inner, times: 2, body: {unit: {width: 4}}}
    - dense: {name: dense, layers: 2, body: [conv2d: {name: "c${i}", out_channels: 2, kernel_size: 1}]}
    - parallel:
        name: mixed
        branches: {left: relu, right: [tanh, relu]}
"""  # fmt: skip


def test_cost_of_a_path_is_that_of_everything_below_it() -> None:
    graph = graph_of(STAGED, "[4, 2, 2]", head=BLOCK)
    assert cost_of(graph, "stem") == cost_of(graph, "stem.conv") == Cost(16, 0, 64)
    assert cost_of(graph, "layer.1").params == 4 * 8 + 8 * 4 + 4 * 4
    assert cost_of(graph, "layer.1.inner.0").params == 8 * 4
    assert cost_of(graph, "layer.1.inner").params == 8 * 4 + 4 * 4
    assert cost_of(graph, "layer") == sum((cost_of(graph, f"layer.{i}") for i in range(3)), Cost())
    assert cost_of(graph, "lay") == cost_of(graph, "nowhere") == Cost()


def test_a_path_is_no_prefix_of_a_longer_name() -> None:
    conv = "conv2d: {{name: {}, out_channels: {}, kernel_size: 1, bias: false}}"
    graph = graph_of(f"- {conv.format('a', 2)}\n- {conv.format('a1', 3)}", "[1, 1, 1]")
    assert [cost_of(graph, path).params for path in ("a", "a1")] == [2, 6]


def test_shapes_at_nodes_composites_branches_and_the_input() -> None:
    graph = graph_of(STAGED, "[4, 2, 2]", head=BLOCK)
    found = {
        path: str(shape_at(graph, path))
        for path in ("input", "stem", "stem.conv", "layer", "layer.2", "layer.2.a", "layer.2.inner",
                     "dense", "dense.c1", "mixed", "mixed.left", "mixed.right")
    }  # fmt: skip
    assert found == {
        "input": "4x2x2", "stem": "4x2x2", "stem.conv": "4x2x2", "layer": "4x2x2",
        "layer.2": "4x2x2", "layer.2.a": "8x2x2", "layer.2.inner": "4x2x2",
        "dense": "8x2x2", "dense.c1": "2x2x2",
        "mixed": "16x2x2", "mixed.left": "8x2x2", "mixed.right": "8x2x2",
    }  # fmt: skip
    assert shape_at(graph, "layer.3") is None
    assert shape_at(graph, "") is None


def test_passes_leave_the_costs() -> None:
    body = STAGED + "    - batch_norm\n    - relu\n"
    graph = graph_of(body, "[4, 2, 2]", head=BLOCK)
    fused, results = run_passes(graph, PASSES)
    assert [result.rewrites for result in results if result.name == "fuse_batch_norm_act"] == [1]
    assert summarize(fused).total == summarize(graph).total


def test_the_report_holds_the_same() -> None:
    nodes = textwrap.indent(textwrap.dedent(SIDE_HEADED).strip(), "  ")
    report = cnngraph.check(f"cnngraph: 1\nname: net\ninput: [3, 8, 8]\ngraph:\n{nodes}\n")
    assert report.summary == summary(SIDE_HEADED)
