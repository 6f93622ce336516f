"""The graph: what it knows of its values, how it reads as text, that it notices contradictions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

import cnngraph
from cnngraph.graph import INPUT, Graph, GraphError, Group, Node
from cnngraph.passes import run_passes
from cnngraph.passes.fuse_batch_norm_act import fuse_batch_norm_act
from cnngraph.shape import TensorShape

TINY = """
cnngraph: 1
name: tiny
input: [3, 8, 8]
graph:
  - conv2d: {name: conv, out_channels: 4, kernel_size: [3, 5], padding: [1, 2], bias: false}
  - batch_norm: {name: bn}
  - relu: {name: act}
  - aux: {name: side, body: [global_avg_pool2d, flatten, linear: {name: fc, out_features: 2}]}
  - residual:
      name: block
      scale: 0.5
      body:
        - conv2d: {name: conv, out_channels: 4, kernel_size: 1}
        - batch_norm: {name: bn, eps: 0.001}
        - leaky_relu: 0.2
  - concat: {name: join, with: conv}
  - flatten
  - linear: {name: fc, out_features: 5}
"""

ELABORATED = """\
graph tiny(input: 3x8x8)
  conv: 4x8x8 = conv2d[bias=false, kernel_size=[3, 5], out_channels=4, padding=[1, 2]](input)
  bn: 4x8x8 = batch_norm(conv)
  act: 4x8x8 = relu(bn)
  side.0: 4x1x1 = global_avg_pool2d(act)
  side.1: 4 = flatten(side.0)
  side.fc: 2 = linear[out_features=2](side.1)
  block.conv: 4x8x8 = conv2d[kernel_size=1, out_channels=4](act)
  block.bn: 4x8x8 = batch_norm[eps=0.001](block.conv)
  block.2: 4x8x8 = leaky_relu[negative_slope=0.2](block.bn)
  block.(scale): 4x8x8 = scale[factor=0.5](block.2)
  block: 4x8x8 = add(block.(scale), act)
  join: 8x8x8 = concat(block, conv)
  6: 512 = flatten(join)
  fc: 5 = linear[out_features=5](6)
  return fc, side=side.fc"""

FUSED = """\
graph tiny(input: 3x8x8)
  conv: 4x8x8 = conv2d[bias=false, kernel_size=[3, 5], out_channels=4, padding=[1, 2]](input)
  act: 4x8x8 = batch_norm_act[batch_norm, relu](conv)
  side.0: 4x1x1 = global_avg_pool2d(act)
  side.1: 4 = flatten(side.0)
  side.fc: 2 = linear[out_features=2](side.1)
  block.conv: 4x8x8 = conv2d[kernel_size=1, out_channels=4](act)
  block.2: 4x8x8 = batch_norm_act[batch_norm[eps=0.001], leaky_relu[negative_slope=0.2]](block.conv)
  block.(scale): 4x8x8 = scale[factor=0.5](block.2)
  block: 4x8x8 = add(block.(scale), act)
  join: 8x8x8 = concat(block, conv)
  6: 512 = flatten(join)
  fc: 5 = linear[out_features=5](6)
  return fc, side=side.fc"""


def graph_of(text: str) -> Graph:
    graph = cnngraph.check(text).graph
    assert graph is not None
    return graph


@pytest.fixture(scope="module")
def tiny() -> Graph:
    return graph_of(TINY)


@pytest.fixture(scope="module")
def fused(tiny: Graph) -> Graph:
    return run_passes(tiny, [fuse_batch_norm_act])[0]


def test_text_as_elaborated(tiny: Graph) -> None:
    assert str(tiny) == ELABORATED


def test_text_after_the_passes(fused: Graph) -> None:
    assert str(fused) == FUSED


def test_users_are_the_nodes_that_read_a_value_in_order(tiny: Graph) -> None:
    users = {path: [node.path for node in nodes] for path, nodes in tiny.users.items()}
    assert users[INPUT] == ["conv"]
    assert users["conv"] == ["bn", "join"]
    assert users["act"] == ["side.0", "block.conv", "block"]
    assert "fc" not in users
    assert users.keys() == {path for node in tiny.nodes for path in node.inputs}


def test_a_node_that_reads_a_value_twice_is_there_twice() -> None:
    graph = graph_of("cnngraph: 1\nname: n\ninput: [4]\ngraph:\n  - relu: {name: a}\n  - add: a\n")
    assert graph.nodes[-1].inputs == ("a", "a")
    assert [node.path for node in graph.users["a"]] == ["1", "1"]


def test_outputs_are_the_result_and_those_of_side_heads(tiny: Graph) -> None:
    assert tiny.outputs == {"fc", "side.fc"}


def test_leaves_take_fused_nodes_apart(tiny: Graph, fused: Graph) -> None:
    assert [leaf.path for leaf in tiny.leaves()] == [node.path for node in tiny.nodes]
    assert list(fused.leaves()) == list(tiny.leaves())
    assert len(fused.nodes) == len(tiny.nodes) - 2


def test_shapes_of_values_and_of_what_a_node_reads(tiny: Graph) -> None:
    assert tiny.shape_of(INPUT) == (3, 8, 8)
    assert tiny.shape_of("join") == (8, 8, 8)
    assert tiny.input_shapes(tiny.by_path["join"]) == ((4, 8, 8), (4, 8, 8))


def test_tensor_shapes() -> None:
    shape = TensorShape((4, 3, 2))
    assert (shape.channels, shape.spatial, shape.elements, str(shape)) == (4, (3, 2), 24, "4x3x2")
    assert shape.with_channels(7) == (7, 3, 2)
    assert TensorShape((5,)).spatial == ()


def changed(graph: Graph, at: str, /, **fields: object) -> Graph:
    """The graph with other fields in the node at the path `at`."""
    return graph.with_nodes([replace(n, **fields) if n.path == at else n for n in graph.nodes])


def defined_twice(graph: Graph) -> Graph:
    return graph.with_nodes([*graph.nodes, graph.nodes[-1]])


def called_like_the_input(graph: Graph) -> Graph:
    return changed(graph, "6", path=INPUT)


def out_of_order(graph: Graph) -> Graph:
    first, second, *rest = graph.nodes
    return graph.with_nodes([second, first, *rest])


def left_out(graph: Graph) -> Graph:
    return graph.with_nodes([node for node in graph.nodes if node.path != "act"])


def wrong_shape(graph: Graph) -> Graph:
    return changed(graph, "bn", shape=TensorShape((4, 8, 9)))


def wrong_rank(graph: Graph) -> Graph:
    return changed(graph, "bn", shape=TensorShape((4,)))


def shape_of_another_input(graph: Graph) -> Graph:
    return changed(graph, "join", inputs=("block", INPUT))


def map_for_a_linear(graph: Graph) -> Graph:
    return changed(graph, "fc", inputs=("join",))


def without_result(graph: Graph) -> Graph:
    return graph.with_nodes(list(graph.nodes[:-1]))


def without_side_result(graph: Graph) -> Graph:
    return graph.with_nodes([node for node in graph.nodes if node.path != "side.fc"])


def held_twice(graph: Graph) -> Graph:
    """The first fused node's modules once more, as a node of their own and under another name."""
    index, node = next((i, n) for i, n in enumerate(graph.nodes) if n.parts)
    again = replace(node, path="again", inputs=(node.path,))
    return graph.with_nodes([*graph.nodes[: index + 1], again, *graph.nodes[index + 1 :]])


@pytest.mark.parametrize(
    ("contradict", "message"),
    [
        (defined_twice, "fc is defined twice"),
        (called_like_the_input, "input is defined twice"),
        (out_of_order, "bn reads ['conv'] before they are defined"),
        (left_out, "side.0 reads ['act'] before they are defined"),
        (wrong_shape, "the shape of bn is 4x8x9, but its op gives 4x8x8"),
        (wrong_rank, "the shape of bn is 4, but its op gives 4x8x8"),
        (shape_of_another_input, "the shape of join is 8x8x8, but its op gives 7x8x8"),
        (
            map_for_a_linear,
            "fc cannot be computed: linear needs a flat vector, but its input is a map of 8x8x8",
        ),
        (without_result, "the output fc is never defined"),
        (without_side_result, "the output side.fc is never defined"),
    ],
)
def test_verify_notices(tiny: Graph, contradict: Callable[[Graph], Graph], message: str) -> None:
    tiny.verify()
    with pytest.raises(GraphError) as caught:
        contradict(tiny).verify()
    assert str(caught.value) == message


def test_verify_notices_modules_held_by_two_nodes(fused: Graph) -> None:
    fused.verify()
    with pytest.raises(GraphError) as caught:
        held_twice(fused).verify()
    assert str(caught.value) == "bn is part of two nodes"


def test_verify_raises_under_python_O() -> None:
    code = """
import cnngraph
from cnngraph.graph import GraphError
graph = cnngraph.check("cnngraph: 1\\nname: n\\ninput: [4]\\ngraph:\\n  - relu\\n").graph
try:
    graph.with_nodes([]).verify()
except GraphError as error:
    print(__debug__, error)
"""
    result = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False the output 0 is never defined\n"


READERS = """
cnngraph: 1
name: readers
input: [4, 8, 8]
graph:
  - relu: {name: once}
  - tanh: {name: twice}
  - add: {name: sum, with: twice}
  - aux: {name: side, body: [relu: {name: a}, tanh: {name: b}]}
  - sigmoid: {name: end}
"""


def test_only_user_is_the_single_reader_of_a_value() -> None:
    graph = graph_of(READERS)
    users = {path: graph.only_user(path) for path in ("input", *graph.by_path)}
    assert {path: node and node.path for path, node in users.items()} == {
        "input": "once",
        "once": "twice",
        "twice": None,  # `sum` reads it twice
        "sum": None,  # the side head reads it too
        "side.a": "side.b",
        "side.b": None,  # the network returns it
        "end": None,
    }


def test_a_reader_in_a_side_head_is_not_the_only_user_of_a_value_outside() -> None:
    graph = graph_of(READERS)
    cut = graph.with_nodes(
        [replace(n, inputs=("once",)) if n.path == "end" else n for n in graph.nodes]
    )
    assert [node.path for node in cut.users["sum"]] == ["side.a"]
    assert cut.only_user("sum") is None


def test_producer_for_gives_the_node_that_only_this_one_reads() -> None:
    graph = graph_of(READERS)
    assert graph.producer_for(graph.by_path["twice"], "once") is graph.by_path["once"]
    assert graph.producer_for(graph.by_path["end"], "once") is None
    assert graph.producer_for(graph.by_path["sum"], "twice") is None
    assert graph.producer_for(graph.by_path["once"], "input") is None


def test_rewrite_goes_backwards_and_skips_what_is_in_a_group() -> None:
    graph = graph_of("cnngraph: 1\nname: n\ninput: [4]\ngraph: [relu, relu, relu]\n")
    asked: list[str] = []

    def pairs(node: Node) -> Group | None:
        asked.append(node.path)
        before = graph.producer_for(node, node.inputs[0])
        nodes = [before, node] if before else [node]
        return nodes, Node.fuse(nodes, node.op, nodes[0].inputs)

    after = graph.rewrite(pairs)
    assert asked == ["2", "0"]
    assert [(node.path, node.inputs) for node in after.nodes] == [("0", ("input",)), ("2", ("0",))]
    assert [leaf.path for leaf in after.leaves()] == ["0", "1", "2"]
    after.verify()
    assert graph.rewrite(lambda node: None) == graph


def test_nodes_are_values(tiny: Graph) -> None:
    with pytest.raises(AttributeError):
        tiny.nodes[0].path = "other"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(tiny.nodes[0], Node)
    assert changed(tiny, "bn", path="other").by_path.keys() != tiny.by_path.keys()
