"""Values by name: going back to them, the order of joins, names given to blocks."""

from __future__ import annotations

import pytest
import torch
from test_elaborate import graph_of, paths

import cnngraph

HEAD = "cnngraph: 1\nname: net\ninput: [3, 8, 8]\n"


def inputs_of(body: str, path: str, head: str = "") -> tuple[str, ...]:
    return graph_of(body, head).by_path[path].inputs


@pytest.mark.parametrize(
    ("written", "inputs"),
    [
        ("a", ("b", "a")),
        ("[a, .]", ("a", "b")),
        ("[., a]", ("b", "a")),
        ("[c, ., a]", ("c", "b", "a")),
        ("[input, .]", ("input", "b")),
    ],
)
def test_join_has_the_written_order(written: str, inputs: tuple[str, ...]) -> None:
    body = f"""
    - relu: {{name: c}}
    - relu: {{name: a}}
    - relu: {{name: b}}
    - concat: {{name: joined, with: {written}}}
    """
    assert inputs_of(body, "joined") == inputs


def test_concatenation_computes_what_torch_does_in_the_same_order() -> None:
    body = "graph:\n  - relu: {name: skip}\n  - tanh\n  - concat: [skip, .]\n"
    x = torch.randn(2, 3, 8, 8)
    for backend in ("fused", "eager"):
        net = cnngraph.compile(HEAD + body, backend=backend)
        assert torch.equal(net(x), torch.cat([x.relu(), x.relu().tanh()], 1))


def test_from_is_what_the_next_node_reads() -> None:
    body = """
    - relu: {name: a}
    - relu: {name: b}
    - from: a
    - tanh: {name: c}
    - tanh: {name: d, from: b}
    - add: {name: e, from: input, with: [c, d]}
    - sequential: {name: s, from: a, body: [relu, add: b]}
    - parallel: {name: p, from: b, merge: add, l: relu, r: {tanh: {from: s}}}
    """
    graph = graph_of(body)
    read = {path: graph.by_path[path].inputs for path in ("c", "d", "e", "s.0", "p.l", "p.r")}
    assert read == {
        "c": ("a",),
        "d": ("b",),
        "e": ("input", "c", "d"),
        "s.0": ("a",),
        "p.l": ("b",),
        "p.r": ("s.1",),
    }


def test_expressions_see_the_shape_of_the_value_that_from_names() -> None:
    body = """
    - conv2d: {name: wide, out_channels: 12, kernel_size: 1}
    - conv2d: {name: narrow, out_channels: 2, kernel_size: 1}
    - conv2d: {name: as_wide, from: wide, out_channels: "${in_channels}", kernel_size: 1}
    - add: wide
    """
    assert graph_of(body).by_path["as_wide"].shape.channels == 12


def test_absent_node_with_from_leaves_the_current_value() -> None:
    body = (
        "- relu: {name: a}\n- relu: {name: b}\n- when: {from: a, test: false, body: relu}\n- tanh"
    )
    assert inputs_of(body, "2") == ("b",)


def test_fused_and_eager_agree_on_a_network_that_goes_back() -> None:
    text = f"""{HEAD}graph:
  - conv2d: {{name: stem, out_channels: 8, kernel_size: 3, padding: 1, bias: false}}
  - batch_norm: {{name: norm}}
  - relu: {{name: high}}
  - conv2d: {{name: down, out_channels: 8, kernel_size: 3, stride: 2, padding: 1, bias: false}}
  - batch_norm: {{name: norm2}}
  - relu: {{name: low}}
  - upsample: {{name: up, scale_factor: 2}}
  - conv2d: {{name: side, from: high, out_channels: 8, kernel_size: 1, bias: false}}
  - batch_norm: {{name: norm3}}
  - add: up
  - relu
  - concat: [high, .]
"""
    fused = cnngraph.compile(text).double()
    eager = cnngraph.compile(text, backend="eager").double()
    eager.load_state_dict(fused.state_dict())
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        torch.testing.assert_close(fused(x), eager(x))
    for net in (fused, eager):
        net(x).square().sum().backward()
    for ours, theirs in zip(fused.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(fused.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(fused.eval().for_inference()(x), eager.eval()(x))


BLOCKS = """
blocks:
  join:
    params: {to: ~}
    body:
      - relu: {name: a}
      - concat: {name: joined, with: "${to}"}
  outer:
    params: {skips: ~, own: b}
    body:
      - relu: {name: a}
      - relu: {name: b}
      - join: {name: inner, to: "${skips[0]}"}
      - repeat: {over: "${skips}", as: skip, body: [{add: {name: "sum${i}", with: "${skip}"}}]}
      - add: {name: last, with: ["${own}"]}
"""


def test_name_given_to_a_block_is_resolved_where_the_block_is_called() -> None:
    body = """
    - relu: {name: a}
    - tanh
    - join: {name: first, to: a}
    - sequential:
        name: level
        body:
          - conv2d: {name: a, out_channels: 8, kernel_size: 1}
          - conv2d: {name: b, out_channels: 16, kernel_size: 1}
          - outer: {name: call, skips: [b]}
    """
    body = body.replace("conv2d: {name: b, out_channels: 16", "conv2d: {name: b, out_channels: 8")
    body = body.replace("skips: [b]", "skips: [b]")
    head = BLOCKS.replace("concat: {name: joined", "add: {name: joined")
    graph = graph_of(body, head)
    assert graph.by_path["first.joined"].inputs == ("first.a", "a")
    assert graph.by_path["level.call.inner.joined"].inputs == ("level.call.inner.a", "level.b")
    assert graph.by_path["level.call.sum0"].inputs == ("level.call.inner.joined", "level.b")
    assert graph.by_path["level.call.last"].inputs == ("level.call.sum0", "level.call.b")


def test_text_given_to_a_block_is_still_a_text() -> None:
    head = """
    blocks:
      styled:
        params: {act: relu, mode: nearest}
        body:
          - ${act}
          - upsample: {scale_factor: 2, mode: "${mode}"}
          - when: {test: "${act == 'tanh' and mode in ['bilinear']}", body: sigmoid}
    """
    assert paths("- styled: {name: s, act: tanh, mode: bilinear}", head) == ["s.0", "s.1", "s.2"]


@pytest.mark.parametrize("branches", ["[relu, {absent}]", "{{l: relu, r: {absent}}}"])
@pytest.mark.parametrize("merge", ["concat", "add", "multiply"])
def test_absent_branch_contributes_nothing(branches: str, merge: str) -> None:
    absent = "{when: {test: false, body: tanh}}"
    written = branches.format(absent=absent)
    graph = graph_of(f"- parallel: {{name: p, merge: {merge}, branches: {written}}}\n- relu")
    assert [node.op.kind for node in graph.nodes] == ["relu", "relu"]
    assert graph.shape_of(graph.output) == (4, 16, 16)


def test_absent_branch_leaves_the_others() -> None:
    branches = "[relu, {when: {test: false, body: tanh}}, [], [{when: {test: true, body: tanh}}]]"
    graph = graph_of(f"- parallel: {{name: p, branches: {branches}}}")
    assert graph.shape_of("p").channels == 12


@pytest.mark.parametrize(
    ("shape", "warned"),
    [
        ("[224, 224, 3]", True),
        ("[28, 28, 1]", True),
        ("[64, 64, 4]", True),
        ("[3, 224, 224]", False),
        ("[1, 28, 1]", False),
        ("[8, 8, 2]", False),
    ],
)
def test_input_that_looks_like_channels_last_is_warned_of(shape: str, warned: bool) -> None:
    report = cnngraph.check(f"cnngraph: 1\nname: net\ninput: {shape}\ngraph: [relu]\n")
    assert report.ok
    assert ("W404" in {item.code for item in report.diagnostics}) == warned


def test_call_without_a_level_whose_whole_body_is_a_composite_adds_none() -> None:
    head = """
    blocks:
      inner: {body: {sequential: [relu: {name: a}, tanh]}}
      outer: {body: [inner]}
      twice: {body: {repeat: {times: 2, body: relu}}}
    """
    body = "- sequential: {name: s, body: [outer: {name: ~}, inner: {name: ~}]}"
    body = body.replace(", inner: {name: ~}", "") + "\n- twice: {name: ~}\n- inner"
    assert paths(body, head) == ["s.a", "s.1", "1", "2", "3.a", "3.1"]


def test_the_same_node_in_two_branches_has_one_set_of_weights() -> None:
    body = """
    - parallel:
        name: ~
        branches:
          - [conv2d: {name: head, out_channels: 2, kernel_size: 1}, flatten]
          - [max_pool2d: 2, conv2d: {name: head, out_channels: 2, kernel_size: 1}, flatten]
    """
    net = cnngraph.compile(f"{HEAD}graph:{body}").eval()
    assert list(net.state_dict()) == ["head.weight", "head.bias"]
    x = torch.randn(2, 3, 8, 8)
    pooled = torch.nn.functional.max_pool2d(x, 2)
    expected = torch.cat([net.head(x).flatten(1), net.head(pooled).flatten(1)], 1)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    ("second", "codes"),
    [
        ("[max_pool2d: 2, conv2d: {name: head, out_channels: 2, kernel_size: 1}]", ["W406"]),
        ("[max_pool2d: 2, conv2d: {name: head, out_channels: 3, kernel_size: 1}]", ["E108"]),
        ("[max_pool2d: 2, conv2d: {name: head, out_channels: 2, kernel_size: 3}]", ["E108"]),
        ("[conv2d: 4, conv2d: {name: head, out_channels: 2, kernel_size: 1}]", ["W406", "E201"]),
    ],
)
def test_nodes_of_one_name_share_weights_only_if_they_are_the_same(
    second: str, codes: list[str]
) -> None:
    second = second.replace("conv2d: 4", "conv2d: {out_channels: 4, kernel_size: 1}")
    body = f"""
    - parallel:
        name: ~
        branches:
          - [conv2d: {{name: head, out_channels: 2, kernel_size: 1}}, flatten]
          - {second[:-1]}, flatten]
    """
    report = cnngraph.check(f"{HEAD}graph:{body}")
    assert [item.code for item in report.diagnostics] == codes


def test_a_node_that_follows_one_of_its_name_is_an_error() -> None:
    body = """
    - conv2d: {name: head, out_channels: 3, kernel_size: 1}
    - conv2d: {name: head, out_channels: 3, kernel_size: 1}
    """
    report = cnngraph.check(f"{HEAD}graph:{body}")
    assert [item.code for item in report.diagnostics] == ["E108"]


def test_the_shape_of_the_input_can_be_given() -> None:
    spec = f"{HEAD}graph:\n- flatten\n- linear: 2\n"
    net = cnngraph.compile(spec, input=(1, 4, 5))
    assert net.get_submodule("1").in_features == 20
    assert net(torch.zeros(2, 1, 4, 5)).shape == (2, 2)
    assert cnngraph.check(spec, input=[1, 4, 5]).graph == net.compilation.graph
    assert cnngraph.check(spec, {"input": (1, 4, 5)}).graph == net.compilation.graph


def test_shapes_of_several_inputs_can_be_given_by_name() -> None:
    spec = """
cnngraph: 1
name: two
inputs: {rgb: [3, 8, 8], depth: [1, 8, 8]}
graph: [flatten: {name: a}, flatten: {from: depth}, concat: [a, .]]
"""
    graph = cnngraph.check(spec, input={"depth": (2, 4, 4)}).graph
    assert graph is not None
    assert {name: tuple(shape) for name, shape in graph.inputs.items()} == {
        "rgb": (3, 8, 8),
        "depth": (2, 4, 4),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((3, 8, 0), "each a whole number from 1 to"),
        ("3x8x8", "must be [channels, height, width]"),
        ((1, 3, 8, 8, 8), "must be [channels, height, width]"),
        ({"depth": (3, 8, 8)}, '`net` has no input "depth"'),
    ],
)
def test_a_wrong_shape_of_the_input_is_reported(given: object, message: str) -> None:
    report = cnngraph.check(f"{HEAD}graph: [relu]", {"input": given})
    assert [item.severity for item in report.diagnostics] == ["error"]
    assert message in report.diagnostics[0].message


def test_params_are_passed_on() -> None:
    head = """
blocks:
  unit:
    params: {out_channels: ~, stride: 1, groups: 1}
    body:
      - conv2d: {kernel_size: 3, padding: 1, pass_params: true}
  stage:
    params: {out_channels: ~, stride: 1, deep: true}
    body:
      - unit: {pass_params: true}
      - unit: {stride: 1, pass_params: true}
      - relu: {}
"""
    ops = [node.op for node in graph_of("- stage: {out_channels: 6, stride: 2}", head).nodes]
    assert [(op.stride, op.out_channels) for op in ops[:2]] == [((2, 2), 6), ((1, 1), 6)]


def test_a_node_in_several_blocks_takes_the_params_of_each() -> None:
    head = """
blocks:
  one:
    params: {out_channels: 4, kernel_size: 1}
    body: [&node {conv2d: {name: conv, pass_params: true}}]
  two:
    params: {out_channels: 6, kernel_size: 3, bias: false}
    body: [*node]
"""
    nodes = graph_of("- one\n- two: {name: b, out_channels: 4}\n- share: b", head).nodes
    assert [(op.kernel_size, op.bias) for op in (node.op for node in nodes)] == [
        ((1, 1), True), ((3, 3), False), ((3, 3), False),
    ]  # fmt: skip
    outside = cnngraph.check(f"{HEAD}{head}graph: [one, *node]")
    assert "this node is in none" in str(outside)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("conv2d: {pass_params: 1}", "`pass_params` must be true or false, not 1"),
        ("relu: {pass_params: true}", "`relu` takes none of the params of `unit`"),
        ("conv2d: {pass_params: true}", "`kernel_size` must be"),
    ],
)
def test_params_that_cannot_be_passed_on(node: str, message: str) -> None:
    blocks = f"blocks: {{unit: {{params: {{kernel_size: x}}, body: [{node}]}}}}\n"
    report = cnngraph.check(f"{HEAD}{blocks}graph: [unit]")
    assert message in str(report)
    outside = cnngraph.check(f"{HEAD}graph: [conv2d: {{pass_params: true}}]")
    assert "this node is in none" in str(outside)
