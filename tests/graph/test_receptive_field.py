"""Receptive fields, against known figures and against the support of gradients."""

from __future__ import annotations

from functools import reduce
from math import lcm
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import SPECS
from torch import Tensor, nn

import cnngraph
from cnngraph.graph import Graph, Node
from cnngraph.graph.features import last_map
from cnngraph.graph.receptive_field import receptive_fields
from cnngraph.ops.reach import SAME, Reach, bins, resized, transposed_window, window


def graph_of(spec: str | Path) -> Graph:
    report = cnngraph.check(spec)
    assert report.graph is not None, report
    return report.graph


def last_field(graph: Graph) -> tuple[Reach, ...]:
    field = receptive_fields(graph)[last_map(graph)]
    assert field is not None
    return field


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [
        ("alexnet", 195, 32),
        ("vgg16", 212, 32),
        ("resnet18", 435, 32),
        ("resnet50", 427, 32),
        ("googlenet", 379, 32),
        ("inception_v3", 1311, 32),
        ("densenet121", 2071, 32),
        ("mobilenet_v2", 491, 32),
    ],
)
def test_known_fields(name: str, size: int, stride: int) -> None:
    """Of Araujo et al. (Distill, 2019) where they have the network; torchvision's GoogLeNet."""
    found = last_field(graph_of(name))
    assert [(axis.size, axis.stride) for axis in found] == [(size, stride)] * 2


HEAD = "cnngraph: 1\nname: net\ninput: [4, 24, 24]\ngraph:\n"


def fields(body: str) -> list[tuple[int, Any, int]]:
    graph = graph_of(HEAD + body)
    field = receptive_fields(graph)[graph.output]
    assert field is not None
    return [(axis.size, axis.stride, axis.offset) for axis in field]


def test_axes_are_counted_apart() -> None:
    conv = "conv2d: {out_channels: 4, kernel_size: [1, 7], padding: [0, 3], stride: [1, 2]}"
    assert fields(f"  - {conv}\n") == [(1, 1, 0), (7, 2, -3)]


def test_a_join_reads_what_any_branch_reads() -> None:
    wide = "conv2d: {out_channels: 4, kernel_size: 5, padding: 2}"
    shifted = "pad: [2, -2, 2, -2]"
    body = f"  - parallel: {{merge: add, branches: [{{{wide}}}, {{{shifted}}}, identity]}}\n"
    assert fields(body) == [(5, 1, -2)] * 2
    assert fields("  - parallel: {merge: add, branches: [{pad: [9, -9, 0, 0]}, identity]}\n") == [
        (1, 1, 0),
        (10, 1, -9),
    ]


def test_what_pools_globally_reads_everything() -> None:
    for op in ("global_avg_pool2d", "instance_norm", "group_norm: 2", "adaptive_avg_pool2d: 1"):
        graph = graph_of(HEAD + f"  - {op}\n")
        assert receptive_fields(graph)[graph.output] is None
    gate = "  - parallel: {merge: multiply, branches: [identity, [global_avg_pool2d, sigmoid]]}\n"
    graph = graph_of(HEAD + gate)
    assert receptive_fields(graph)[graph.output] is None


def test_reaches_are_composed() -> None:
    three = window(3, 2, 1)
    assert three.after(SAME) == three
    assert three.after(three) == Reach(4, ((-3, 3),))
    doubled = resized(SAME.stride / 2, SAME.stride * 0, 0, 0)
    assert doubled == Reach(1, ((0, 0), (0, 0)))
    assert window(2, 2).after(doubled) == SAME  # the shortest period
    assert transposed_window(1, 2).spans == ((0, 0), None)
    assert bins(7, 3).spans == ((0, 2), (2, 4), (4, 6))


MOST_NODES = 3600

# --- the support of gradients ---------------------------------------------------------------------


def unit(graph: Graph, node: Node, inputs: list[Tensor]) -> Tensor:
    """A node with one channel and weights of one, in double precision."""
    op, kind = node.op, node.op.kind
    size = node.shape.spatial
    if op.references:
        inputs = [inputs[0], inputs[1].detach()] if len(inputs) > 1 else inputs
    if kind in ("conv2d", "conv_transpose2d"):
        unit_op = op.model_copy(update={"out_channels": 1, "groups": 1, "bias": False})
        module: Any = unit_op.module(node.shape.with_channels(1))
        nn.init.ones_(module.weight)
        return module.double()(inputs[0])
    if kind in ("concat", "add", "multiply"):
        return reduce(torch.add, inputs)
    if kind == "max_pool2d":
        padding = op.padding_of(graph.input_shapes(node)[0])  # type: ignore[attr-defined]
        (top, bottom), (left, right) = padding
        padded = F.pad(inputs[0], (left, right, top, bottom + 64))
        kernel = torch.ones(1, 1, *op.kernel_size).double()  # type: ignore[attr-defined]
        stride = op.stride or op.kernel_size  # type: ignore[attr-defined]
        summed = F.conv2d(padded, kernel, stride=stride, dilation=op.dilation)  # type: ignore[attr-defined]
        padded = F.pad(summed, (0, 64, 0, 0))
        return padded[..., : size[0], : size[1]]
    if kind == "max_unpool2d":
        unpooled = F.conv_transpose2d(
            inputs[0],
            torch.ones(1, 1, *op.kernel_size).double(),  # type: ignore[attr-defined]
            stride=op.stride or op.kernel_size,  # type: ignore[attr-defined]
            padding=op.padding,  # type: ignore[attr-defined]
        )
        return F.pad(unpooled, (0, size[1], 0, size[0]))[..., : size[0], : size[1]]
    if kind == "pixel_shuffle":
        return F.interpolate(inputs[0], size=size)
    if kind == "pixel_unshuffle":
        return F.avg_pool2d(inputs[0], op.downscale_factor)  # type: ignore[attr-defined]
    if op.pointwise:
        return inputs[0]
    module = op.module(*graph.input_shapes(node))
    return module.double()(*inputs)


def support(graph: Graph, path: str, position: tuple[int, ...]) -> list[tuple[int, int]] | None:
    """The first and last row and column of the input that a position's gradient reaches."""
    x = torch.ones(1, 1, *graph.input.spatial, dtype=torch.float64, requires_grad=True)
    values: dict[str, Tensor] = dict.fromkeys(graph.inputs, x)
    for node in graph.nodes:
        if node.aux:
            continue
        values[node.path] = unit(graph, node, [values[item] for item in node.inputs])
        assert values[node.path].shape[2:] == node.shape.spatial, node.path
        if node.path == path:
            break
    values[path][0, 0][position].backward()
    assert x.grad is not None
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    return [(int(rows.min()), int(rows.max())), (int(columns.min()), int(columns.max()))]


def furthest(graph: Graph) -> str | None:
    """The last value that does not read the whole input."""
    found = receptive_fields(graph)
    nodes = (node for node in reversed(graph.nodes) if not node.aux)
    return next((node.path for node in nodes if found.get(node.path) is not None), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    sorted(path for path in SPECS.rglob("*.yaml") if path.parent.name != "blocks"),
    ids=lambda path: str(path.relative_to(SPECS)),
)
def test_fields_are_the_support_of_gradients(path: Path) -> None:
    """With one channel and weights of one, nothing cancels: each input that is read shows."""
    graph = graph_of(path)
    if len(graph.inputs) > 1 or len(graph.input.spatial) != 2:
        pytest.skip("the input is not a single map")
    if len(graph.nodes) > MOST_NODES:
        pytest.skip(f"it has {len(graph.nodes)} nodes; smaller networks have the same blocks")
    field = furthest(graph)
    if field is None:
        pytest.skip("every value reads the whole input")
    # One row wide enough for the largest field: an input twice as wide, if the network takes it.
    size = max(axis.size for axis in receptive_fields(graph)[field] or ())
    step = reduce(lcm, (axis.stride.numerator for axis in receptive_fields(graph)[field] or ()), 1)
    height, width = graph.input.spatial
    wider = width + step * (-(-2 * size // step))
    larger = cnngraph.check(path, input=(graph.input.channels, height, wider)).graph
    if larger is not None:
        graph = larger
    found = receptive_fields(graph)[field]
    assert found is not None
    shape = graph.shape_of(field)
    centre = tuple(length // 2 for length in shape.spatial)
    expected = []
    for axis, place, length in zip(found, centre, graph.input.spatial, strict=True):
        span = axis.at(place)
        assert span is not None
        expected.append((max(0, span[0]), min(length - 1, span[1])))
    *rows, columns = support(graph, field, centre)
    assert columns == expected[-1]
    for (first, last), (low, high) in zip(rows, expected, strict=False):
        if any(max(getattr(node.op, "dilation", (1,))) > 1 for node in graph.nodes):
            # The outer taps of a dilated kernel may fall outside of the map, and the inner within.
            assert low <= first <= last <= high
        else:
            assert (first, last) == (low, high)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["resnet18", "googlenet"])
def test_a_compiled_network_agrees(spec: str) -> None:
    """In evaluation, with positive weights, on a strip that is wide enough."""
    report = cnngraph.check(spec, input=(3, 32, 1024))
    assert report.graph is not None
    graph = report.graph
    path = last_map(graph)
    net = cnngraph.compile(SPECS / f"{spec}.yaml", backend="eager", outputs=[path]).eval().double()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 1e-2)
    for name, module in [*net.named_modules()]:
        if isinstance(module, nn.MaxPool2d):  # the gradient would reach one value of each window
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            net.set_submodule(name, mean)
    x = torch.ones(1, 3, 32, 1024, dtype=torch.float64, requires_grad=True)
    (value,) = net(x).values()
    place = value.shape[-1] // 2
    value[0, :, 0, place].sum().backward()
    assert x.grad is not None
    columns = x.grad.abs().sum((0, 1, 2)).nonzero()
    span = last_field(graph)[1].at(place)
    assert span == (int(columns.min()), int(columns.max()))
