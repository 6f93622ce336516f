"""The walk: names, blocks, loops, joins and side heads, seen in the graphs they give."""

from __future__ import annotations

import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnngraph
from cnngraph.elaborate.builder import GraphBuilder
from cnngraph.elaborate.place import INVALID
from cnngraph.graph import Graph


def graph_of(body: str, head: str = "", input: str = "[4, 16, 16]", **params: object) -> Graph:
    text = (
        f"cnngraph: 1\nname: net\ninput: "
        f"{input}\n{textwrap.dedent(head)}graph:\n{textwrap.dedent(body)}"
    )
    report = cnngraph.check(text, params or None)
    assert report.ok, "\n".join(map(str, report.diagnostics))
    assert report.graph is not None
    report.graph.verify()
    return report.graph


def paths(body: str, head: str = "", **params: object) -> list[str]:
    return [node.path for node in graph_of(body, head, **params).nodes]


BLOCKS = """
blocks:
  pair:
    params: {width: 4}
    body:
      - conv2d: {name: conv, out_channels: "${width}", kernel_size: 1}
      - relu
  wrapped: {body: {pair: {width: 8}}}
  gated:
    body:
      - parallel: {left: relu, right: [sigmoid, tanh]}
  summed:
    body:
      - residual: {name: ~, body: [pair: {name: inner}]}
      - relu
  single: {body: {conv2d: {out_channels: 8, kernel_size: 1}}}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("- relu\n- tanh: {name: second}\n- relu", ["0", "second", "2"]),
        ("- [relu, relu]\n- relu", ["0", "1", "2"]),
        ("- sequential: [relu, relu]\n- relu", ["0.0", "0.1", "1"]),
        ("- sequential: {name: stem, body: [relu]}", ["stem.0"]),
        ("- sequential: {name: ~, body: [relu]}\n- relu", ["0", "1"]),
        ("- relu\n- repeat: {times: 2, body: [relu, tanh]}\n- "
         "relu", ["0", "1", "2", "3", "4", "5"]),
        ("- repeat: {name: layer, times: 2, body: relu}\n- relu", ["layer.0", "layer.1", "1"]),
        ("- repeat: {times: 0, body: relu}\n- relu", ["0"]),
        ("- when: {test: true, body: [relu, tanh]}\n- relu", ["0", "1", "2"]),
        ("- when: {test: false, body: [relu, tanh]}\n- relu", ["0"]),
        ("- when: {test: true, body: relu}\n- relu", ["0", "1"]),
        ("- when: {name: w, test: '${in_channels == 4}', body: relu}\n- relu", ["w.0", "1"]),
        ("- when: {name: w, test: '${in_channels == 5}', body: relu}\n- add: {with: w}", ["1"]),
        ("- when: {test: false, body: {no_such_op: 3}}\n- relu", ["0"]),
        ("- residual: {body: relu, shortcut: {when: {test: false, body: relu}}}", ["0.0", "0"]),
        ("- repeat: {times: 2, body: {relu: {name: 'act${i + 1}'}}}", ["act1", "act2"]),
        ("- pair: {name: a}\n- pair", ["a.conv", "a.1", "1.conv", "1.1"]),
        ("- pair: {name: ~}\n- relu", ["conv", "1", "2"]),
        ("- wrapped: {name: w}", ["w.conv", "w.1"]),
        ("- single: {name: s}", ["s"]),
        ("- gated: {name: g}", ["g.left", "g.right.0", "g.right.1", "g"]),
        ("- parallel: [relu, [tanh, relu]]", ["0.0", "0.1", "0.2", "0"]),
        ("- parallel: {name: ~, branches: [relu, [tanh, relu]]}", ["0", "1", "2", "(concat)"]),
        ("- summed: {name: s}", ["s.inner.conv", "s.inner.1", "s.(add)", "s.1"]),
        ("- residual: {body: relu}", ["0.0", "0"]),
        ("- dense: {name: d, layers: 2, body: {relu: {name: "
         "'l${i}'}}}", ["d.l0", "d.(concat)", "d.l1", "d"]),
        ("- residual: {name: r, scale: 0.5, body: relu}", ["r.0", "r.(scale)", "r"]),
        ("- relu: {name: x}\n- tanh\n- concat: {name: j, with: x}\n- add: j", ["x", "1", "j", "3"]),
        ("- aux: {name: side, body: relu}\n- relu", ["side.0", "1"]),
    ],
)  # fmt: skip
def test_names(body: str, expected: list[str]) -> None:
    assert paths(body, BLOCKS) == expected


def test_a_shortcut_may_be_an_expression() -> None:
    head = "params: {s: project}\n"
    body = (
        "- residual: {name: r, body: [conv2d: {name: a, out_channels: 8, kernel_size: 1}], "
        "shortcut: '${s}'}"
    )
    assert paths(body, head) == ["r.a", "r.downsample.0", "r.downsample.1", "r"]
    same = body.replace("8", "4")
    assert (
        paths(same, head, s="identity")
        == paths(same, head.replace("project", "'${none}'"))
        == ["r.a", "r"]
    )
    assert paths(same, head, s="tanh") == ["r.a", "r.1", "r"]


@pytest.mark.parametrize("ten", [10, np.int64(10), np.uint8(10), np.array(10)])
def test_params_from_python_may_be_numbers_of_numpy(ten: object) -> None:
    graph = graph_of("- conv2d: {out_channels: '${n}', kernel_size: 1}", "params: {n: 3}\n", n=ten)
    assert graph.nodes[0].shape.channels == 10
    assert type(graph.nodes[0].shape.channels) is int
    head = "params: {sizes: [1], p: 0.5, on: false}\n"
    graph = graph_of(
        "- dropout: '${p}'\n- when: {test: '${on}', body: {max_pool2d: '${sizes}'}}", head,
        sizes=np.array([2, 4]), p=np.float32(0.25), on=np.bool_(True),
    )  # fmt: skip
    assert str(graph.nodes[-1].shape) == "4x8x4"


def test_params_of_other_types_are_refused() -> None:
    text = "cnngraph: 1\nname: net\ninput: [1]\nparams: {n: ~}\ngraph: [relu]\n"
    (found,) = cnngraph.check(text, {"n": object()}).diagnostics
    assert (
        found.message
        == "the param `n` must be a number, text or a list, not an object of type object"
    )


HEAVY = {
    "dense": "- dense: {layers: 4000, body: {conv2d: {out_channels: 1, kernel_size: 1}}}",
    "flat residuals": "- repeat: {times: 10000, body: {residual: {name: ~, body: [relu]}}}",
    "expressions": "- repeat: {times: 12000, body: {conv2d: {name: 'c${i}', out_channels: '${i % 3 + 1}', kernel_size: 1}}}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_large_networks_take_linear_time(name: str) -> None:
    start = time.process_time()
    assert len(graph_of(HEAVY[name]).nodes) >= 8000
    assert time.process_time() - start < 8, "seconds, where a quadratic walk takes minutes"


def test_at_most_a_hundred_mistakes_are_reported() -> None:
    nodes = "".join(f"  - no_such_op_{i}\n" for i in range(5000))
    found = cnngraph.check(f"cnngraph: 1\nname: net\ninput: [1]\ngraph:\n{nodes}").diagnostics
    assert [item.code for item in found] == ["E104"] * 100 + ["E110"]
    nodes = "  - linear: {name: fc, out_features: 1}\n" + "  - linear: 1\n" * 300
    found = cnngraph.check(f"cnngraph: 1\nname: net\ninput: [1]\ngraph:\n{nodes}").diagnostics
    assert [item.code for item in found] == ["W401"] * 101
    assert found[-1].message == "the same is true at 200 more places"


def test_too_many_params_are_refused() -> None:
    params = ", ".join(f"p{i}: 1" for i in range(1001))
    for text in (
        f"params: {{{params}}}\ngraph: [relu]\n",
        f"blocks: {{b: {{params: {{{params}}}, body: relu}}}}\ngraph: [b]\n",
    ):
        (found,) = cnngraph.check(f"cnngraph: 1\nname: net\ninput: [1]\n{text}").diagnostics
        assert (found.code, found.message) == (
            "E110",
            "there are 1,001 params; at most 1,000 are allowed",
        )


def test_projection_only_where_the_sides_differ() -> None:
    body = """
    - repeat:
        name: layer
        times: 2
        body:
          residual:
            body: [conv2d: {name: conv, out_channels: 8, kernel_size: 3, stride: "${2 - i}", padding: 1}]
            shortcut: project
    """
    assert paths(body) == [
        "layer.0.conv", "layer.0.downsample.0", "layer.0.downsample.1", "layer.0",
        "layer.1.conv", "layer.1",
    ]  # fmt: skip


def test_expressions_see_the_shape_at_their_place() -> None:
    body = """
    - max_pool2d: [2, 4]
    - conv2d: {out_channels: "${in_channels * 2}", kernel_size: ["${in_height}", "${in_width}"], groups: "${in_channels}"}
    - flatten
    - linear: ${in_channels + 1}
    """
    graph = graph_of(body)
    assert [str(node.shape) for node in graph.nodes] == ["4x8x4", "8x1x1", "8", "9"]


def test_params_reach_expressions_blocks_and_the_input() -> None:
    head = """
    params: {width: 8, double: "${width * 2}"}
    blocks:
      wide: {params: {extra: "${double}"}, body: {conv2d: {out_channels: "${width + extra}", kernel_size: 1}}}
    """
    assert graph_of("- wide", head).nodes[0].shape.channels == 24
    assert graph_of("- wide", head, width=10).nodes[0].shape.channels == 30
    assert graph_of("- wide: 1", head.replace('"${double}"', "~")).nodes[0].shape.channels == 9


def test_loops_bind_items_their_parts_and_the_counter() -> None:
    body = """
    - repeat:
        over: [[8, 1], [16, 2]]
        as: [width, stride]
        index: stage
        body:
          - repeat:
              over: [a, b]
              as: letter
              body:
                - conv2d: {name: "${letter}${stage}${i}", out_channels: "${width}", kernel_size: 1, stride: "${stride}"}
    """
    graph = graph_of(body)
    assert [(node.path, str(node.shape)) for node in graph.nodes] == [
        ("a00", "8x16x16"), ("b01", "8x16x16"), ("a10", "16x8x8"), ("b11", "16x4x4"),
    ]  # fmt: skip
    assert [(copy.index, copy.times) for copy in graph.nodes[3].copies] == [(1, 2), (1, 2)]


def test_the_kind_of_a_node_may_be_an_expression() -> None:
    head = "params: {act: tanh}\n"
    assert graph_of("- ${act}", head).nodes[0].op.kind == "tanh"
    assert graph_of("- ${act}", head, act="relu").nodes[0].op.kind == "relu"


def test_names_of_earlier_values_are_looked_up_outwards() -> None:
    body = """
    - sequential:
        name: encoder
        body:
          - conv2d: {name: one, out_channels: 4, kernel_size: 1}
          - sequential: {name: inner, body: [relu, add: {with: one}, multiply: {with: encoder.one}]}
    - concat: {with: [encoder.one, encoder]}
    """
    graph = graph_of(body)
    assert graph.by_path["encoder.inner.1"].inputs == ("encoder.inner.0", "encoder.one")
    assert graph.nodes[-1].inputs == ("encoder.inner.2", "encoder.one", "encoder.inner.2")
    assert graph.nodes[-1].shape.channels == 12


def test_side_heads_leave_the_main_value_alone() -> None:
    body = """
    - relu: {name: stem}
    - aux: {name: side, body: [global_avg_pool2d, flatten, linear: {name: fc, out_features: 3}]}
    - flatten
    """
    graph = graph_of(body)
    assert graph.aux == {"side": "side.fc"}
    assert [node.aux for node in graph.nodes] == ["", "side", "side", "side", ""]
    assert graph.by_path["2"].inputs == ("stem",)


def test_side_heads_may_read_an_earlier_value() -> None:
    body = """
    - relu: {name: stem}
    - max_pool2d: 4
    - aux: {name: side, from: stem, body: [flatten, linear: {name: fc, out_features: 3}]}
    - flatten
    """
    graph = graph_of(body)
    assert graph.by_path["side.0"].inputs == ("stem",)
    assert graph.by_path["side.0"].shape == (4 * 16 * 16,)
    assert graph.by_path["3"].inputs == ("1",)


def test_scopes_have_the_shapes_of_composites() -> None:
    graph = graph_of("- gated: {name: g}\n- sequential: {name: s, body: [relu, flatten]}", BLOCKS)
    assert {path: str(scope.shape) for path, scope in graph.scopes.items()} == {
        "g": "8x16x16", "g.right": "4x16x16", "s": "2048",
    }  # fmt: skip


def test_flat_inputs() -> None:
    graph = graph_of("- linear: 32\n- relu\n- linear: 10", input="[64]")
    assert [str(node.shape) for node in graph.nodes] == ["32", "32", "10"]


def test_warning_only_if_names_and_numbers_are_mixed() -> None:
    def warnings(body: str) -> list[str]:
        text = f"cnngraph: 1\nname: net\ninput: [4, 8, 8]\ngraph:\n{body}"
        return [d.code for d in cnngraph.check(text).diagnostics]

    conv = "conv2d: {out_channels: 4, kernel_size: 1}"
    named = "conv2d: {name: c, out_channels: 4, kernel_size: 1}"
    assert warnings(f"  - {conv}\n  - {conv}\n") == []
    assert warnings(f"  - {named}\n  - relu\n") == []
    assert warnings(f"  - {named}\n  - {conv}\n") == ["W401"]
    assert warnings(f"  - {named}\n  - repeat: {{name: r, times: 2, body: {{{conv}}}}}\n") == []
    assert warnings(f"  - {named}\n  - repeat: {{times: 2, body: [relu, {conv}]}}\n") == ["W401"]
    assert warnings(f"  - {named}\n  - sequential: [relu, {named}]\n") == ["W401"]


def test_level_with_only_numbers_is_not_mixed() -> None:
    def warned(body: str, head: str = "") -> list[tuple[str, str]]:
        text = f"cnngraph: 1\nname: net\ninput: [4, 8, 8]\n{head}graph:\n{body}"
        report = cnngraph.check(text)
        assert report.ok
        return [(d.path, dict(d.notes)["help"]) for d in report.diagnostics]

    conv = "conv2d: {out_channels: 4, kernel_size: 1}"
    named = "conv2d: {name: c, out_channels: 4, kernel_size: 1}"
    plain = f"sequential: {{name: features, body: [{conv}, relu, {conv}]}}"
    assert warned(f"  - {plain}\n  - {named}\n") == []
    assert warned(f"  - {named}\n  - {plain.replace('name: features, ', '')}\n") == [
        ("1", "give the sequential a `name`")
    ]
    block = f"blocks: {{b: {{body: [{named}, relu]}}}}\n"
    assert warned(f"  - {named}\n  - b\n  - b: {{name: x}}\n", block) == [
        ("1", "give the b a `name`")
    ]
    assert warned("  - b\n  - b\n", block) == []
    assert warned(f"  - {conv}\n  - {conv.replace('{out', '{name: 1, out')}\n") == []


def test_a_join_finds_finished_values_of_outer_levels() -> None:
    body = (
        "- relu: {name: skip}\n- sequential: {name: b, body: [tanh, concat: {name: skip, with: "
        "skip}]}"
    )
    assert paths(body) == ["skip", "b.0", "b.skip"]
    body = (
        "- residual: {name: r, body: [conv2d: {out_channels: 8, kernel_size: 1}], shortcut: "
        "project}\n- add: r.downsample"
    )
    assert paths(body)[-1] == "1"


WORDS = st.sampled_from(
    ["relu", "tanh", "add: a", "concat: b", "add: a.b", "concat: {name: a, with: b}", "flatten"]
)
NODES = st.recursive(
    WORDS,
    lambda inner: st.builds(
        lambda kind, name, body: kind.format(name=name, body=", ".join(f"{{{item}}}" if ":" in item else item for item in body)),
        st.sampled_from([
            "sequential: {{name: {name}, body: [{body}]}}",
            "residual: {{name: {name}, body: [{body}]}}",
            "residual: {{name: {name}, body: [relu], shortcut: [{body}]}}",
            "parallel: {{name: {name}, b: [{body}], c: relu}}",
            "dense: {{name: {name}, layers: 2, body: [{body}]}}",
            "repeat: {{times: 2, body: [{body}]}}",
            "when: {{name: {name}, test: true, body: [{body}]}}",
            "aux: {{name: {name}, from: a, body: [{body}]}}",
            "aux: {{name: {name}, body: [{body}]}}",
        ]),
        st.sampled_from("abc"),
        st.lists(inner, max_size=3),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=4))
def test_spec_gives_either_a_graph_or_an_error(nodes: list[str]) -> None:
    """With joins of any name, their own included."""
    body = "".join(f"  - {{{node}}}\n" if ":" in node else f"  - {node}\n" for node in nodes)
    report = cnngraph.check(f"cnngraph: 1\nname: net\ninput: [4, 8, 8]\ngraph:\n{body}")
    assert (report.graph is None) != report.ok, body


def test_an_invalid_value_without_an_error_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(GraphBuilder, "add", lambda *arguments, **details: INVALID)
    with pytest.raises(AssertionError, match="reported no error"):
        cnngraph.check("cnngraph: 1\nname: net\ninput: [4, 8, 8]\ngraph: [relu]\n")


def test_params_are_finite() -> None:
    text = (
        "cnngraph: 1\nname: net\ninput: [4, 8, 8]\nparams: {mult: 1.0, any: ~}\ngraph: [scale: "
        "'${mult}']\n"
    )
    (found,) = cnngraph.check(text, {"mult": float("nan"), "any": 1}).diagnostics
    assert found.message == "the param `mult` must be a finite number, not nan"


def test_unused_block_is_checked_as_far_as_possible() -> None:
    head = """blocks:
  fine: {params: {w: ~}, body: [repeat: {times: "${w}", body: [add: outside]}, conv2d: {out_channels: "${w}", kernel_size: 1}]}
"""
    assert paths("- relu", head) == ["0"]


def test_one_mistake_hides_its_consequences() -> None:
    text = (
        "cnngraph: 1\nname: net\ninput: [4, 8, 8]\ngraph:\n  - conv2d: {out_channels: 4, "
        "kernel_size: 9}\n  - linear: ${in_channels}\n  - relu: {slope: 1}\n"
    )
    assert [d.code for d in cnngraph.check(text).diagnostics] == ["E202", "E101"]
