"""What passes do to a graph, where they must not, and how the pipeline watches over them."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest
import torch

import cnngraph
from cnngraph.graph import Graph, GraphError, Node
from cnngraph.graph.cost import Cost, node_cost, shape_at, summarize
from cnngraph.graph.features import select
from cnngraph.ops import OPS
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.fused import BatchNormAct, CatBatchNormAct, DenseBlock, FusedMaxPool2d
from cnngraph.passes import LEAN, PASSES, run_passes
from cnngraph.passes.channels_last import channels_last
from cnngraph.passes.eliminate_concat import eliminate_concat
from cnngraph.passes.fuse_batch_norm_act import fuse_batch_norm_act
from cnngraph.passes.fuse_max_pool import fuse_max_pool
from cnngraph.passes.plan_dense_blocks import plan_dense_blocks
from cnngraph.passes.recompute_activations import recompute_activations
from cnngraph.shape import TensorShape

ACTIVATIONS = sorted(op.kind for op in FUSED_WITH_BATCH_NORM)
OTHERS = ["prelu", "selu", "softmax", "identity", "dropout", "batch_norm", "global_avg_pool2d"]


def graph_of(body: str, input: str = "[4, 8, 8]") -> Graph:
    nodes = textwrap.indent(textwrap.dedent(body).strip(), "  ")
    report = cnngraph.check(f"cnngraph: 1\nname: net\ninput: {input}\ngraph:\n{nodes}\n")
    assert report.ok, "\n".join(map(str, report.diagnostics))
    assert report.graph is not None
    return report.graph


def fuse(body: str, input: str = "[4, 8, 8]") -> Graph:
    return fused(graph_of(body, input))


def fused(graph: Graph) -> Graph:
    """What the pass makes of it, but that batch norms it took alone are as they were written."""
    graph = fuse_batch_norm_act(graph)
    graph.verify()
    return graph.with_nodes([node.parts[0] if is_alone(node) else node for node in graph.nodes])


def is_alone(node: Node) -> bool:
    return isinstance(node.op, BatchNormAct) and len(node.parts) == 1


def test_a_batch_norm_alone_is_computed_the_same_way() -> None:
    (node, *_) = fuse_batch_norm_act(
        graph_of("- batch_norm: {name: bn, eps: 0.5}\n- dropout")
    ).nodes
    assert node.op == BatchNormAct(batch_norm=OPS["batch_norm"](eps=0.5), activation=None)
    assert (node.path, node.inputs, node.parts[0].path) == ("bn", ("input",), "bn")


def kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("input", ["[4, 8, 8]", "[16]"])
def test_batch_norm_and_its_activation_become_one(kind: str, input: str) -> None:
    graph = fuse(f"- batch_norm: {{name: bn, eps: 0.5}}\n- {kind}: {{name: act}}\n- dropout", input)
    first, second = graph.nodes
    assert isinstance(first.op, BatchNormAct)
    assert first.op.batch_norm == OPS["batch_norm"](eps=0.5)
    assert first.op.activation == OPS[kind]()
    assert (first.path, first.inputs) == ("act", ("input",))
    assert [part.path for part in first.parts] == ["bn", "act"]
    assert second.inputs == ("act",)


def test_the_list_of_activations_holds_the_usual_ones() -> None:
    assert {"relu", "relu6", "silu", "gelu", "leaky_relu", "hardswish"} <= set(ACTIVATIONS)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_readers_are_not_fused(kind: str) -> None:
    body = f"- batch_norm\n- {kind}\n- relu"
    expected = ["batch_norm", kind, "relu"]
    if kind == "batch_norm":
        expected[1:] = ["batch_norm_act"]
    assert kinds(fuse(body)) == expected


@pytest.mark.parametrize("norm", ["layer_norm", "group_norm: 2", "conv2d: [4, 1]", "relu"])
def test_only_batch_norm_is_fused(norm: str) -> None:
    if norm.startswith("conv2d"):
        norm = "conv2d: {out_channels: 4, kernel_size: 1}"
    assert "batch_norm_act" not in kinds(fuse(f"- {norm}\n- relu"))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            "- batch_norm\n- residual: {body: relu}", id="the shortcut of a residual reads it too"
        ),
        pytest.param(
            "- batch_norm: {name: bn}\n- relu\n- concat: {with: bn}", id="a concat reads it later"
        ),
        pytest.param(
            "- batch_norm: {name: bn}\n- relu\n- tanh\n- add: bn", id="an add reads it later"
        ),
        pytest.param(
            "- batch_norm\n- parallel: {left: relu, right: tanh}", id="two branches read it"
        ),
        pytest.param(
            "- batch_norm\n- parallel: {left: relu, right: relu}",
            id="two branches of one kind read it",
        ),
        pytest.param(
            "- batch_norm\n- dense: {layers: 1, body: relu}", id="the concat of a dense reads it"
        ),
        pytest.param(
            "- batch_norm\n- aux: {name: side, body: relu}\n- tanh", id="a side head reads it too"
        ),
        pytest.param("- relu\n- batch_norm", id="it is the result"),
        pytest.param(
            "- batch_norm\n- aux: {name: side, body: relu}",
            id="it is the result, and a side head reads it",
        ),
        pytest.param(
            "- aux: {name: side, body: [relu, batch_norm]}\n- relu", id="a side head results in it"
        ),
    ],
)
def test_a_batch_norm_that_others_read_stays(body: str) -> None:
    before = graph_of(body)
    assert fused(before).nodes == before.nodes


def test_side_head_result_read_inside_the_head_is_not_fused() -> None:
    """No spec can say this, but a pass may leave such a graph behind."""
    before = graph_of("- aux: {name: side, body: [batch_norm, relu]}\n- relu")
    before = replace(before, aux={"side": "side.0"})
    assert fused(before).nodes == before.nodes


def test_inside_side_heads_residuals_and_repeats_too() -> None:
    graph = fuse("""
        - aux: {name: side, body: [batch_norm, relu]}
        - repeat:
            name: layer
            times: 3
            body:
              residual: {body: [batch_norm, relu, batch_norm]}
        - batch_norm
        - silu
    """)
    fused = [node for node in graph.nodes if isinstance(node.op, BatchNormAct)]
    assert [node.path for node in fused] == [
        "side.1", "layer.0.1", "layer.0", "layer.1.1", "layer.1", "layer.2.1", "layer.2", "3",
    ]  # fmt: skip
    assert [node.aux for node in fused] == ["side", *[""] * 7]
    assert [[copy.index for copy in node.copies] for node in fused] == [
        [],
        [0],
        [0],
        [1],
        [1],
        [2],
        [2],
        [],
    ]


def test_names_can_still_be_referred_to() -> None:
    """Readers go by the activation's name, and what a block results in is where it was."""
    body = """
        - sequential: {name: stem, body: [batch_norm, relu: {name: act}]}
        - tanh
        - concat: {with: [stem, stem.act]}
    """
    before, after = graph_of(body), fuse(body)
    assert after.by_path["2"].inputs == ("1", "stem.act", "stem.act")
    assert after.scopes["stem"].output in after.by_path
    for node in after.nodes:
        assert node.shape == before.by_path[node.path].shape
        assert node.origin == before.by_path[node.path].origin
    assert shape_at(after, "stem") == shape_at(after, "stem.act") == (4, 8, 8)
    assert (after.output, after.aux) == (before.output, before.aux)


def test_costs_are_those_of_the_parts() -> None:
    before, after = (f("- batch_norm\n- relu") for f in (graph_of, fuse))
    norm, (fused,) = before.nodes[0], after.nodes
    assert node_cost(after, fused) == node_cost(before, norm) == Cost(params=8, buffers=3)


def test_fusing_twice_equals_fusing_once() -> None:
    once = fuse(
        "- batch_norm\n- relu\n- batch_norm\n- tanh\n- relu\n- residual: {body: batch_norm}\n- relu"
    )
    assert kinds(once) == ["batch_norm_act", "batch_norm_act", "relu", "batch_norm_act"]
    assert fuse_batch_norm_act(once).nodes == once.nodes


# --- with an addition between batch norm and activation ------------------------------------------

CONV = "conv2d: {out_channels: 4, kernel_size: 1}"


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("input", ["[4, 8, 8]", "[16]"])
def test_residual_of_a_batch_norm_is_fused(kind: str, input: str) -> None:
    body = (
        f"- tanh\n- residual: {{name: block, body: [batch_norm: {{name: bn, eps: 0.5}}]}}\n- "
        f"{kind}: {{name: act}}\n- dropout"
    )
    before, after = graph_of(body, input), fuse(body, input)
    _, fused, last = after.nodes
    assert fused.op == BatchNormAct(
        batch_norm=OPS["batch_norm"](eps=0.5), activation=OPS[kind](), residual=True
    )
    assert str(fused.op).startswith("batch_norm_act[batch_norm[eps=0.5], add, ")
    assert (fused.path, fused.inputs, last.inputs) == ("act", ("0", "0"), ("act",))
    assert [part.path for part in fused.parts] == [
        "block.bn",
        before.by_path["act"].inputs[0],
        "act",
    ]
    assert list(after.leaves()) == list(before.nodes)
    assert node_cost(after, fused) == node_cost(before, before.by_path["block.bn"])


@pytest.mark.parametrize(
    ("body", "norm"),
    [
        pytest.param(
            f"- residual: {{body: [{CONV}, batch_norm: {{name: main}}], shortcut: [{CONV}, "
            f"batch_norm: {{name: other}}]}}",
            "main", id="the end of a residual's body, not of its shortcut",
        ),
        pytest.param(
            f"- residual: {{body: [{CONV}], shortcut: [{CONV}, batch_norm: {{name: other}}]}}",
            "other", id="the end of the shortcut where the body ends otherwise",
        ),
        pytest.param(
            "- parallel: {merge: add, branches: [tanh, batch_norm: {name: "
            "second}]}", "second", id="the second that is added",
        ),
        pytest.param(
            "- parallel: {merge: add, branches: [[batch_norm: {name: first}], [tanh, "
            "relu6]]}", "first",
            id="the earlier operand",
        ),
        pytest.param(
            "- parallel: {merge: add, branches: [batch_norm: {name: first}, [batch_norm: {name: "
            "second}, relu]]}", "first",
            id="beside one with an activation of its own",
        ),
    ],
)  # fmt: skip
def test_chosen_batch_norm_is_fused_at_the_activation(body: str, norm: str) -> None:
    before, after = (
        graph_of(f"{body}\n- relu: {{name: act}}"),
        fuse(f"{body}\n- relu: {{name: act}}"),
    )
    fused = after.by_path["act"]
    assert isinstance(fused.op, BatchNormAct)
    assert fused.op.residual
    taken, add, activation = fused.parts
    assert taken.path.rpartition(".")[2] == norm
    assert (add.op.kind, activation.path) == ("add", "act")
    assert fused.inputs == (*taken.inputs, *(path for path in add.inputs if path != taken.path))
    assert after.nodes[-1] is fused
    assert {leaf.path for leaf in after.leaves()} == {node.path for node in before.nodes}


def test_with_two_batch_norms_the_first_operand_is_fused() -> None:
    graph = graph_of(
        "- parallel: {merge: add, branches: [batch_norm: {name: a}, batch_norm: {name: b}]}\n- relu"
    )
    first, second, add, relu = graph.nodes
    for inputs in ((first.path, second.path), (second.path, first.path)):
        *rest, fused = fuse_batch_norm_act(
            graph.with_nodes([first, second, replace(add, inputs=inputs), relu])
        ).nodes
        assert fused.parts[0].path == inputs[0]
        assert fused.inputs == ("input", inputs[1])
        assert [node.path for node in rest] == [inputs[1]]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("- residual: {name: r, body: batch_norm}", id="it is the result"),
        pytest.param(
            "- residual: {name: r, body: batch_norm}\n- softmax", id="no activation of the kernel's"
        ),
        pytest.param(
            "- residual: {name: r, body: batch_norm}\n- relu\n- concat: r",
            id="others read the sum too",
        ),
        pytest.param(
            "- residual: {name: r, body: batch_norm}\n- batch_norm\n- relu",
            id="a batch norm reads it",
        ),
        pytest.param(
            "- residual: {name: r, body: batch_norm}\n- aux: {name: side, body: relu}",
            id="a side head reads it",
        ),
    ],
)
def test_a_sum_without_an_activation_is_fused(body: str) -> None:
    before, after = graph_of(body), fuse(body)
    fused, *rest = after.nodes
    add = before.nodes[1]
    assert fused.op == BatchNormAct(batch_norm=OPS["batch_norm"](), activation=None, residual=True)
    assert str(fused.op) == "batch_norm_act[batch_norm, add]"
    assert (fused.path, fused.inputs) == (add.path, ("input", "input"))
    assert [part.op.kind for part in fused.parts] == ["batch_norm", "add"]
    assert [leaf.path for leaf in after.leaves()] == [node.path for node in before.nodes]
    assert "relu" not in kinds(after) or rest[0] == before.nodes[2]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("- batch_norm: {name: bn}\n- add: bn\n- relu", id="added to itself"),
        pytest.param(
            "- tanh: {name: t}\n- batch_norm: {name: bn}\n- add: t\n- relu\n- concat: bn",
            id="read again",
        ),
        pytest.param(
            "- parallel: {merge: add, branches: [batch_norm, tanh, relu6]}\n- relu",
            id="three are added",
        ),
        pytest.param(
            "- parallel: {merge: multiply, branches: [batch_norm, tanh]}\n- relu", id="no addition"
        ),
        pytest.param(
            "- residual: {body: [batch_norm, dropout]}\n- relu", id="something in between"
        ),
    ],
)
def test_other_additions_stay(body: str) -> None:
    before = graph_of(body)
    assert fused(before).nodes == before.nodes


def test_sum_that_is_an_output_is_not_fused() -> None:
    graph = graph_of("- residual: {name: r, body: batch_norm}\n- relu")
    add = graph.by_path[graph.nodes[-1].inputs[0]]
    for path, left in (
        (add.path, ["batch_norm_act", "relu"]),
        (graph.nodes[0].path, ["batch_norm", "add", "relu"]),
    ):
        asked = replace(graph, features={"sum": path, "result": graph.output})
        assert kinds(fused(asked)) == left


def test_nothing_is_fused_across_the_edge_of_a_side_head() -> None:
    """A head that reads a value of the network is another module: what it reads must stay
    outside."""
    graph = graph_of("- residual: {body: batch_norm}\n- relu")
    for index, left in enumerate((1, 3, 2)):
        nodes = [
            replace(node, aux="side" if at >= index else "") for at, node in enumerate(graph.nodes)
        ]
        assert len(fused(graph.with_nodes(nodes)).nodes) == left


def test_additions_inside_side_heads_are_fused() -> None:
    graph = fuse("- aux: {name: side, body: [tanh, residual: {body: batch_norm}, relu]}\n- relu")
    assert [(node.op.kind, node.aux) for node in graph.nodes] == [
        ("tanh", "side"), ("batch_norm_act", "side"), ("relu", ""),
    ]  # fmt: skip


def test_the_blocks_of_a_resnet() -> None:
    report = cnngraph.check("specs/resnet18.yaml")
    assert report.graph is not None
    graph, (result,) = run_passes(report.graph, [fuse_batch_norm_act])
    norms = [node for node in graph.nodes if isinstance(node.op, BatchNormAct)]
    assert [sum(node.op.residual for node in norms), len(norms), result.rewrites] == [8, 20, 20]
    assert not {"add", "batch_norm"} & set(kinds(graph))
    assert [node.path for node in norms if is_alone(node)] == [
        f"layer{stage}.0.downsample.1" for stage in (2, 3, 4)
    ]


# --- max pools ----------------------------------------------------------------------------------

POOL = "max_pool2d: {name: pool, kernel_size: 3, stride: 2}"


def test_a_max_pool_takes_in_the_relu_that_it_alone_reads() -> None:
    before = graph_of(f"- tanh\n- relu: {{name: r}}\n- {POOL}\n- dropout")
    after = fuse_max_pool(before)
    after.verify()
    _, fused, last = after.nodes
    pool = before.by_path["pool"]
    assert fused.op == FusedMaxPool2d(relu=OPS["relu"](), pool=pool.op)
    assert str(fused.op) == f"fused_max_pool2d[relu, {pool.op}]"
    assert (fused.path, fused.inputs, last.inputs, fused.shape) == (
        "pool",
        ("0",),
        ("pool",),
        pool.shape,
    )
    assert [part.path for part in fused.parts] == ["r", "pool"]
    assert list(after.leaves()) == list(before.nodes)
    assert fuse_max_pool(after).nodes == after.nodes


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f"- tanh\n- {POOL}", id="no relu"),
        pytest.param(f"- relu6\n- {POOL}", id="another activation"),
        pytest.param(f"- {POOL}", id="the input"),
        pytest.param(f"- relu\n- aux: {{name: side, body: tanh}}\n- "
                     f"{POOL}", id="a side head reads the relu too"),
        pytest.param(f"- relu: {{name: r}}\n- parallel: [{POOL}, [conv2d: {{out_channels: 1, "
                     f"kernel_size: 3, stride: 2}}]]",
                     id="another branch reads the relu too"),
        pytest.param(f"- relu: {{name: r}}\n- aux: {{name: side, body: "
                     f"[{POOL}]}}", id="the relu is the result"),
    ],
)  # fmt: skip
def test_a_max_pool_alone(body: str) -> None:
    before = graph_of(body)
    after = fuse_max_pool(before)
    after.verify()
    (fused,) = (node for node in after.nodes if isinstance(node.op, FusedMaxPool2d))
    assert fused.op.relu is None
    assert [part.path for part in fused.parts] == [fused.path]
    assert list(after.leaves()) == list(before.nodes)
    assert fused.inputs == before.by_path[fused.path].inputs


def test_relu_between_batch_norm_and_max_pool_is_fused_with_the_batch_norm() -> None:
    graph = fuse_max_pool(fuse(f"- batch_norm\n- relu\n- {POOL}"))
    assert kinds(graph) == ["batch_norm_act", "fused_max_pool2d"]


# --- the pipeline -------------------------------------------------------------------------------


def keep(graph: Graph) -> Graph:
    return graph


def drop_the_last(graph: Graph) -> Graph:
    return graph.with_nodes(list(graph.nodes[:-1]))


def stretch(graph: Graph) -> Graph:
    first, *rest = graph.nodes
    return graph.with_nodes([replace(first, shape=TensorShape((1,))), *rest])


def forget_the_first(graph: Graph) -> Graph:
    """Leaves out a layer that keeps the shape."""
    first, second, *rest = graph.nodes
    return graph.with_nodes([replace(second, inputs=first.inputs), *rest])


def flatten_nothing(graph: Graph) -> Graph:
    """Leaves a linear layer that reads a map: its rule refuses to answer at all."""
    *rest, last = graph.nodes
    return graph.with_nodes([*rest, replace(last, inputs=("input",))])


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        (
            [drop_the_last],
            "the graph after the pass drop_the_last is inconsistent: "
            "the output 3 is never defined (passes before it: none)",
        ),
        (
            [keep, fuse_batch_norm_act, stretch, drop_the_last],
            "the graph after the pass stretch is inconsistent: the shape of 1 is 1, but its op "
            "gives 4x8x8 "
            "(passes before it: keep, fuse_batch_norm_act)",
        ),
        (
            [forget_the_first],
            "the graph after the pass forget_the_first is inconsistent: "
            "its layers with modules differ from those before (passes before it: none)",
        ),
        (
            [keep, flatten_nothing],
            "the graph after the pass flatten_nothing is inconsistent: 3 cannot be computed: "
            "linear needs a flat vector, but its input is a map of 4x8x8 (passes before it: keep)",
        ),
    ],
)
def test_a_faulty_pass_is_named_with_those_before_it(passes: list, message: str) -> None:
    graph = graph_of("- batch_norm\n- relu\n- flatten\n- linear: 2")
    with pytest.raises(cnngraph.CnngraphError) as caught:
        run_passes(graph, passes)
    assert str(caught.value) == message


def test_invalid_input_graph_is_not_blamed_on_a_pass() -> None:
    with pytest.raises(GraphError, match="the output 1 is never defined"):
        run_passes(drop_the_last(graph_of("- batch_norm\n- relu")), [keep])


def test_the_observer_sees_the_graph_after_every_stage() -> None:
    graph = graph_of("- batch_norm\n- relu")
    seen: list[tuple[str, Graph]] = []
    result, _ = run_passes(
        graph, [keep, fuse_batch_norm_act, keep], lambda name, after: seen.append((name, after))
    )
    assert [name for name, _ in seen] == ["elaborate", "keep", "fuse_batch_norm_act", "keep"]
    assert [len(after.nodes) for _, after in seen] == [2, 2, 1, 1]
    assert seen[0][1] is graph
    assert seen[-1][1] is result


def test_the_observer_does_not_see_what_a_faulty_pass_left() -> None:
    seen: list[str] = []
    with pytest.raises(cnngraph.CnngraphError):
        run_passes(
            graph_of("- batch_norm\n- relu"),
            [keep, drop_the_last, keep],
            lambda name, _: seen.append(name),
        )
    assert seen == ["elaborate", "keep"]


def test_results_count_the_nodes_a_pass_made() -> None:
    graph = graph_of("- batch_norm\n- relu\n- tanh\n- batch_norm\n- relu")
    _, results = run_passes(graph, [keep, fuse_batch_norm_act, fuse_batch_norm_act])
    assert [(r.name, r.rewrites, r.nodes) for r in results] == [
        ("keep", 0, 5), ("fuse_batch_norm_act", 2, 3), ("fuse_batch_norm_act", 0, 3),
    ]  # fmt: skip
    assert all(result.seconds >= 0 for result in results)


def test_compile_shows_the_same_stages() -> None:
    text = "cnngraph: 1\nname: n\ninput: [4, 8, 8]\ngraph:\n  - batch_norm\n  - relu\n"
    for backend, stages in {
        "eager": ["elaborate"],
        "fused": ["elaborate", *(function.__name__ for function in PASSES)],
    }.items():
        seen: list[str] = []
        network = cnngraph.compile(
            text, backend=backend, observe=lambda name, _, seen=seen: seen.append(name)
        )
        assert seen == stages
        assert [result.name for result in network.compilation.passes] == stages[1:]
        assert len(network.compilation.graph.nodes) == 2


# --- channels last ------------------------------------------------------------------------------


def test_maps_are_channels_last_from_the_input_on() -> None:
    graph = channels_last(
        graph_of("- conv2d: {name: a, out_channels: 4, kernel_size: 1}\n- add: a\n- concat: a")
    )
    graph.verify()
    assert [node.inputs for node in graph.nodes] == [
        ("input",),
        ("(channels_last)",),
        ("a", "a"),
        ("1", "a"),
    ]
    assert channels_last(graph) is graph


@pytest.mark.parametrize(("body", "input"), [("- relu", "[4, 8, 8]"), ("- linear: 3", "[4]")])
def test_without_convolutions_the_layout_is_left_alone(body: str, input: str) -> None:
    graph = graph_of(body, input)
    assert channels_last(graph) is graph


def test_the_maps_of_a_fused_network_are_channels_last() -> None:
    network = cnngraph.compile(
        "cnngraph: 1\nname: n\ninput: [3, 8, 8]\ngraph:\n- conv2d: {out_channels: 8, kernel_size: "
        "3}\n- batch_norm\n- relu\n"
    )
    result = network(torch.randn(2, 3, 8, 8))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert network.get_parameter("0.weight").is_contiguous()


# --- dense blocks -------------------------------------------------------------------------------

LAYER = "[batch_norm, relu, conv2d: {out_channels: 3, kernel_size: 3, padding: 1}]"
BOTTLENECK = f"[batch_norm, relu, conv2d: {{out_channels: 5, kernel_size: 1}}, {LAYER[1:]}"


def planned(body: str) -> Graph:
    graph = plan_dense_blocks(fuse(body))
    graph.verify()
    return graph


@pytest.mark.parametrize("body", [LAYER, BOTTLENECK])
def test_the_layers_of_a_dense_block_become_one_node(body: str) -> None:
    text = f"- dense: {{name: block, layers: 3, body: {body}}}\n- tanh"
    before, after = fuse(text), planned(text)
    block, tanh = after.nodes
    assert isinstance(block.op, DenseBlock)
    assert (block.path, block.inputs, block.shape) == ("block", ("input",), (13, 8, 8))
    assert tanh.inputs == ("block",)
    assert len(block.op.layers) == 3
    assert block.op.keep_activations
    assert list(after.leaves()) == list(before.leaves())
    assert summarize(after).total == summarize(before).total
    assert isinstance(recomputed := recompute_activations(after).nodes[0].op, DenseBlock)
    assert not recomputed.keep_activations


def test_every_block_of_a_network_is_found_and_ends_where_its_last_layer_does() -> None:
    graph = planned(f"""
        - dense: {{name: first, layers: 2, body: {LAYER}}}
        - max_pool2d: 2
        - dense: {{name: second, layers: 4, body: {BOTTLENECK}}}
        - aux: {{name: side, body: [dense: {{name: third, layers: 2, body: {LAYER}}}]}}
        - batch_norm
    """)
    found = {
        node.path: len(node.op.layers) for node in graph.nodes if isinstance(node.op, DenseBlock)
    }
    assert found == {"first": 2, "second": 4, "side.third": 2}
    assert graph.by_path["side.third"].aux == "side"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f"- dense: {{layers: 1, body: {LAYER}}}", id="one layer"),
        pytest.param(
            f"- dense: {{layers: 3, body: [dropout: 0.5, {LAYER[1:]}}}",
            id="another op before the norm",
        ),
        pytest.param(
            f"- dense: {{layers: 3, body: {LAYER[:-1]}, relu]}}",
            id="another op after the convolution",
        ),
        pytest.param(
            f"- dense: {{layers: 3, body: {LAYER[:-1]}, {BOTTLENECK[1:]}}}", id="three steps"
        ),
        pytest.param(
            "- dense: {layers: 3, body: [batch_norm, relu, conv2d: {out_channels: 3, kernel_size: "
            "3, padding: 1, "
            "padding_mode: circular}]}",
            id="a padding that is not of zeros",
        ),
        pytest.param(
            "- dense: {layers: 3, body: [batch_norm, conv2d: {out_channels: 3, kernel_size: 1}]}",
            id="no activation",
        ),
        pytest.param(
            "- dense: {layers: 3, body: [batch_norm: {eps: '${0.1 * (i + 1)}'}, relu, "
            "conv2d: {out_channels: 3, kernel_size: 1}]}",
            id="norms that differ",
        ),
    ],
)
def test_other_nodes_are_not_a_dense_block(body: str) -> None:
    assert "dense_block" not in kinds(planned(body))


def test_values_that_others_read_end_a_block() -> None:
    body = "\n".join(
        f"- dense: {{name: {name}, layers: 1, body: {{sequential: {{name: of_{name}, body: "
        f"{LAYER}}}}}}}"
        for name in "abcd"
    )
    whole = [node for node in planned(body).nodes if isinstance(node.op, DenseBlock)]
    assert [len(node.op.layers) for node in whole] == [4]  # pyright: ignore[reportAttributeAccessIssue]
    for read, expected in (("b", [2, 2]), ("a", [3]), ("c.of_c", [2]), ("d", [4])):
        graph = planned(f"{body}\n- concat: {{with: {read}}}")
        found = [len(node.op.layers) for node in graph.nodes if isinstance(node.op, DenseBlock)]
        assert found == expected, read
    asked = select(graph_of(body), ["b", "d"])
    found = [
        len(n.op.layers)
        for n in plan_dense_blocks(fuse_batch_norm_act(asked)).nodes
        if isinstance(n.op, DenseBlock)
    ]
    assert found == [2, 2]


# --- concatenations ------------------------------------------------------------------------------


def side_by_side(graph: Graph) -> Graph:
    graph = eliminate_concat(fuse_batch_norm_act(graph))
    graph.verify()
    return graph


CONV = "conv2d: {out_channels: 3, kernel_size: 1}"
INCEPTION = f"""
- parallel:
    name: cat
    branches:
      a: {{sequential: [{CONV}, batch_norm, relu]}}
      b: {{sequential: [{CONV}, relu]}}
      c: {{max_pool2d: {{kernel_size: 3, stride: 1, padding: 1}}}}
      d: {{sequential: [{CONV}, batch_norm]}}
- tanh
"""


def test_branches_write_their_results_side_by_side() -> None:
    before = graph_of(INCEPTION)
    after = side_by_side(before)
    (cat,) = (node for node in after.nodes if isinstance(node.op, CatBatchNormAct))
    assert (cat.path, cat.shape) == ("cat", (13, 8, 8))
    assert cat.inputs == ("cat.a.0", "cat.b.0", "cat.c", "cat.d.0")
    norm, relu = OPS["batch_norm"](), OPS["relu"]()
    assert cat.op.branches == (  # pyright: ignore[reportAttributeAccessIssue]
        BatchNormAct(batch_norm=norm, activation=relu), relu, None, BatchNormAct(batch_norm=norm, activation=None)
    )  # fmt: skip
    assert [part.path for part in cat.parts] == ["cat.a.1", "cat.a.2", "cat.b.1", "cat.d.1", "cat"]
    assert summarize(after).total == summarize(before).total
    assert eliminate_concat(after) == after


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        pytest.param(f"- parallel: [[{CONV}, batch_norm, silu], [{CONV}, batch_norm, "
                     f"relu]]", [True, False], id="silu"),
        pytest.param(f"- parallel: [[{CONV}, batch_norm, relu], [batch_norm, "
                     f"silu]]", [True, False], id="the first"),
        pytest.param(f"- parallel: [[{CONV}, batch_norm], "
                     f"[relu]]", [True, True], id="a batch norm alone"),
        pytest.param(f"- parallel: [[{CONV}], [silu]]", None, id="nothing to compute"),
        pytest.param("- parallel: {merge: add, branches: [[batch_norm, relu], [batch_norm, "
                     "relu]]}", None, id="a sum"),
        pytest.param("- tanh: {name: a}\n- residual: [batch_norm]\n- concat: {with: "
                     "a}", None, id="a batch norm of a sum"),
        pytest.param(
            f"- batch_norm: {{name: bn}}\n- parallel: [[{CONV}], [identity: {{}}]]\n- concat: "
            f"{{with: bn}}",
            None, id="another reader",
        ),
    ],
)  # fmt: skip
def test_fused_branches(body: str, taken: list[bool] | None) -> None:
    found = [
        node.op.branches
        for node in side_by_side(graph_of(body)).nodes
        if isinstance(node.op, CatBatchNormAct)
    ]
    assert (
        found == [] if taken is None else [[branch is not None for branch in found[0]]] == [taken]
    )


def test_branches_that_are_outputs_or_in_side_heads_are_not_fused() -> None:
    asked = side_by_side(select(graph_of(INCEPTION), ["cat", "cat.a"]))
    (cat,) = (node.op for node in asked.nodes if isinstance(node.op, CatBatchNormAct))
    assert [branch is not None for branch in cat.branches] == [False, True, False, True]
    inside = side_by_side(
        graph_of(f"""
        - batch_norm: {{name: bn}}
        - aux: {{name: side, body: [parallel: [[{CONV}, batch_norm, relu], [identity]]]}}
        - tanh
    """)
    )
    (head,) = (node for node in inside.nodes if isinstance(node.op, CatBatchNormAct))
    assert head.aux == "side"


def test_dense_blocks_and_memory_policies_come_first() -> None:
    dense = graph_of(f"- dense: {{name: block, layers: 3, body: {BOTTLENECK}}}")
    for passes in (PASSES, LEAN):
        assert "cat_batch_norm_act" not in kinds(run_passes(dense, passes)[0])
        graph, results = run_passes(graph_of(INCEPTION), passes)
        assert kinds(graph).count("cat_batch_norm_act") == 1
        assert {result.name: result.made for result in results}["eliminate_concat"] == {
            "batch_norm + relu + relu + batch_norm + concat": 1
        }


# --- recomputed activations ---------------------------------------------------------------------


def lean(body: str) -> Graph:
    graph = recompute_activations(fuse(body))
    graph.verify()
    return graph


def test_activation_read_only_by_a_convolution_is_recomputed() -> None:
    graph = lean(
        "- batch_norm\n- relu\n- conv2d: {name: c, out_channels: 2, kernel_size: 1}\n- tanh"
    )
    assert kinds(graph) == ["batch_norm_act_conv", "tanh"]
    assert (graph.nodes[0].path, graph.nodes[0].inputs) == ("c", ("input",))
    assert [part.path for part in graph.nodes[0].parts] == ["0", "1", "c"]
    assert (
        summarize(graph).total
        == summarize(
            graph_of(
                "- batch_norm\n- relu\n- conv2d: {name: c, out_channels: 2, kernel_size: 1}\n- tanh"
            )
        ).total
    )


@pytest.mark.parametrize(
    "body",
    [
        "- batch_norm\n- relu: {name: r}\n- conv2d: {out_channels: 4, kernel_size: 1}\n- add: r",
        "- batch_norm\n- relu\n- max_pool2d: 2\n- conv2d: {out_channels: 4, kernel_size: 1}",
        "- relu\n- conv2d: {out_channels: 4, kernel_size: 1}",
    ],
)
def test_an_activation_that_others_read_is_kept(body: str) -> None:
    assert "batch_norm_act_conv" not in kinds(lean(body))


def test_the_memory_policies() -> None:
    text = (
        "cnngraph: 1\nname: n\ninput: [3, 8, 8]\ngraph:\n- batch_norm\n- relu\n- conv2d: "
        "{out_channels: 8, kernel_size: 3}\n"
    )
    network = cnngraph.compile(text, memory="lean")
    assert network.compilation.options.memory == "lean"
    assert "batch_norm_act_conv" in network.code
    assert "batch_norm_act_conv" not in cnngraph.compile(text).code
    with pytest.raises(
        cnngraph.CnngraphError,
        match="there is no memory policy `least`; choose one of fast, lean, or",
    ):
        cnngraph.compile(text, memory="least")


def test_passes_can_be_disabled() -> None:
    text = (
        "cnngraph: 1\nname: n\ninput: [3, 8, 8]\ngraph:\n- batch_norm\n- relu\n- conv2d: "
        "{out_channels: 8, kernel_size: 3}\n"
    )
    network = cnngraph.compile(text, disable_passes=["channels_last"])
    assert [item.name for item in network.compilation.passes] == [
        item.__name__ for item in PASSES if item is not channels_last
    ]
    assert "channels_last" not in network.code
    network = cnngraph.compile(text, disable_passes=[item.__name__ for item in PASSES])
    assert not network.compilation.passes
    for given, suggestion in {
        "channel_last": r"; did you mean `channels_last`\?",
        "-channels_last": r"; did you mean `channels_last`\?",
        "recompute_to_fit": r"\.",
        "": r"\.",
    }.items():
        with pytest.raises(
            cnngraph.CnngraphError,
            match=f"there is no pass `{given}` to disable{suggestion} "
            "The passes are: fuse_batch_norm_act, plan_dense_blocks, ",
        ):
            cnngraph.compile(text, disable_passes=[given])
    with pytest.raises(
        cnngraph.CnngraphError,
        match=r"there is no pass `channels_last` to disable\. This backend has none",
    ):
        cnngraph.compile(text, backend="eager", disable_passes=["channels_last"])
    with pytest.raises(cnngraph.CnngraphError, match="is a list"):
        cnngraph.compile(text, disable_passes="channels_last")


def test_pass_reports_the_nodes_it_made() -> None:
    text = (
        "cnngraph: 1\nname: n\ninput: [8, 8, 8]\ngraph:\n- residual: [batch_norm]\n- relu\n- "
        "batch_norm\n- relu\n- conv2d: {out_channels: 8, kernel_size: 1}\n"
    )
    passes = {item.name: item for item in cnngraph.compile(text).compilation.passes}
    first = passes["fuse_batch_norm_act"]
    assert first.made == {"batch_norm + add + relu": 1, "batch_norm + relu": 1}
    assert (first.rewrites, first.nodes) == (2, 3)
    assert passes["channels_last"].made == {"channels_last": 1}
