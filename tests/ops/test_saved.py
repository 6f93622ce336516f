"""What ops say they keep for backward, against what autograd keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import cnngraph
from cnngraph import kernels
from cnngraph.errors import Position, Source
from cnngraph.graph import INPUT, Graph, Node
from cnngraph.lowering.modules import Roots, lower, modules_of
from cnngraph.nn.level import Level, Sequential
from cnngraph.ops import OPS, Op, activation, norm, pool
from cnngraph.ops.fused import (
    BatchNormAct,
    BatchNormActConv,
    CatBatchNormAct,
    FusedMaxPool2d,
)
from cnngraph.ops.merge import Add, Concat, Multiply
from cnngraph.ops.saved import Batch, Saved
from cnngraph.shape import TensorShape

pytestmark = pytest.mark.usefixtures("one_thread")

MAP = TensorShape((8, 6, 6))
SIGNAL, VOLUME = TensorShape((8, 12)), TensorShape((8, 4, 6, 6))
SAME = {"kernel_size": 3, "stride": 2, "padding": "same"}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    **{
        f"{kind}{rank}d": settings
        for rank in (1, 2, 3)
        for kind, settings in {
            "adaptive_avg_pool": [{"output_size": 3}],
            "adaptive_max_pool": [{"output_size": 3}],
            "avg_pool": [{"kernel_size": 2}, SAME],
            "max_pool": [{"kernel_size": 2}, SAME],
            "conv": [{"out_channels": 4, "kernel_size": 3, "padding": 1}],
            "conv_transpose": [{"out_channels": 4, "kernel_size": 3}],
            "dropout": [{"p": 0.5}, {"p": 0.0}],
        }.items()
    },
    "channel_shuffle": [{"groups": 2}],
    "chunk": [{"chunks": 2, "index": 1}],
    "conv2d": [
        *(
            {"out_channels": 4, "kernel_size": 3, "padding": (1, 2), "padding_mode": mode}
            for mode in ("zeros", "reflect", "replicate", "circular")
        ),
        {"out_channels": 4, **SAME},
        {"out_channels": 4, "kernel_size": 1, "stride": 2, "padding": "same"},
    ],
    "crop": [{"size": 4}],
    "drop_path": [{"p": 0.5}, {"p": 0.0}],
    "dropout": [{"p": 0.5}, {"p": 0.0}],
    "group_softmax": [{"groups": 2}],
    "group_norm": [{"num_groups": 4}],
    "layer_norm": [{}, {"elementwise_affine": False}],
    "linear": [{"out_features": 5}],
    "linear2d": [{"out_features": 5}],
    "local_response_norm": [{"size": 3}],
    "max_pool2d": [{"kernel_size": 2}, {"kernel_size": 3, "stride": 1, "padding": 1}, SAME],
    "normalize": [{"mean": (0.5,) * 8, "std": (2.0,) * 8}],
    "pad": [
        {"padding": 1, "mode": mode} for mode in ("constant", "reflect", "replicate", "circular")
    ],
    "permute": [{"dims": (0, 1, 3, 2)}],
    "pixel_shuffle": [{"upscale_factor": 2}],
    "pixel_unshuffle": [{"downscale_factor": 2}],
    "scale": [{"factor": 2.0}],
    "slice": [{"start": 2, "end": 5}],
    "split": [{"split_size": (3, 5), "index": 1}],
    "transpose": [{"dim0": 2, "dim1": 3}],
    "unflatten": [{"unflattened_size": (2, 4)}],
    "upsample": [{"scale_factor": 2, "mode": mode} for mode in ("nearest", "bilinear")],
}
RANKS = {"1d": SIGNAL, "3d": VOLUME}
CASES: list[tuple[Op, tuple[TensorShape, ...]]] = [
    (
        OPS[kind](**settings),
        ({"linear": TensorShape((12,))}.get(kind) or RANKS.get(kind[-2:], MAP),),
    )
    for kind in sorted(OPS)
    if kind not in ("max_unpool2d", "module")
    for settings in SETTINGS.get(kind, [{}])
]
CASES += [
    (OPS["upsample"](like="x"), (MAP, TensorShape((2, 12, 12)))),
    (OPS["crop"](like="x"), (MAP, TensorShape((2, 4, 4)))),
    (OPS["pad"](like="x"), (MAP, TensorShape((2, 9, 9)))),
    (OPS["max_unpool2d"](like="x", kernel_size=2), (TensorShape((8, 3, 3)), MAP)),
    (Concat(), (MAP, MAP)),
    (Add(), (MAP, MAP)),
    (Add(), (MAP, MAP, MAP)),
    (Multiply(), (MAP, MAP)),
    (Multiply(), (MAP, MAP, MAP)),
    (Multiply(), (MAP, TensorShape((8, 1, 1)))),
]
CONV = OPS["conv2d"](out_channels=8, kernel_size=3, padding=1)
BATCH_NORM_RELU = BatchNormAct(batch_norm=norm.BatchNorm(), activation=activation.ReLU())
BATCH_NORM_SILU = BatchNormAct(batch_norm=norm.BatchNorm(), activation=activation.SiLU())
RESIDUAL = BatchNormAct(batch_norm=norm.BatchNorm(), activation=activation.ReLU(), residual=True)
FUSED: list[tuple[Op, tuple[TensorShape, ...]]] = [
    (BATCH_NORM_RELU, (MAP,)),
    (BATCH_NORM_SILU, (MAP,)),
    (BatchNormAct(batch_norm=norm.BatchNorm(), activation=None), (MAP,)),
    (RESIDUAL, (MAP, MAP)),
    (BatchNormAct(batch_norm=norm.BatchNorm(), activation=None, residual=True), (MAP, MAP)),
    (
        BatchNormAct(batch_norm=norm.BatchNorm(), activation=activation.SiLU(), residual=True),
        (MAP, MAP),
    ),
    (BatchNormActConv(batch_norm_act=BATCH_NORM_RELU, conv=CONV), (MAP,)),
    (CatBatchNormAct(branches=(BATCH_NORM_RELU, None)), (MAP, MAP)),
    (CatBatchNormAct(branches=(BATCH_NORM_RELU, None, activation.ReLU())), (MAP, MAP, MAP)),
    (FusedMaxPool2d(relu=None, pool=pool.MaxPool2d(kernel_size=2)), (MAP,)),
    (FusedMaxPool2d(relu=activation.ReLU(), pool=pool.MaxPool2d(kernel_size=3, padding=1)), (MAP,)),
]


def ids(value: object) -> str:
    return str(value) if isinstance(value, Op) else ""


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=ids)
def test_rules_are_what_autograd_keeps(op: Op, shapes: tuple[TensorShape, ...]) -> None:
    compare(op, shapes)


@pytest.mark.skipif(not kernels.available(), reason="the compiled extension is missing")
@pytest.mark.parametrize(("op", "shapes"), FUSED, ids=ids)
def test_rules_of_fused_ops_are_what_autograd_keeps(
    op: Op, shapes: tuple[TensorShape, ...]
) -> None:
    compare(op, shapes)


def compare(op: Op, shapes: tuple[TensorShape, ...]) -> None:
    batch = Batch(4)
    output = op.infer(*shapes)
    saved = op.saves(batch, output, *shapes)
    inputs = [torch.randn(4, *shape).requires_grad_() for shape in shapes]
    if len(shapes[0]) == 3:
        inputs = [
            x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            for x in inputs
        ]
    kept, result, own = run(op, inputs, shapes, output)
    places = {place(x): index for index, x in enumerate(inputs)}
    read = {places[key] for key in kept if key in places}
    if not saved.view:
        assert (place(result) in kept) == saved.output
        assert place(result) not in places
    else:
        assert (
            place(result) == place(inputs[0]) or op.kind == "flatten"
        )  # it copies maps that are channels last
    assert read == set(saved.inputs)
    others = {
        key: size
        for key, size in kept.items()
        if key not in places and key != place(result) and key not in own
    }
    assert sum(others.values()) == saved.extra


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def run(
    op: Op, inputs: list[Tensor], shapes: tuple[TensorShape, ...], output: TensorShape
) -> tuple[dict[int, int], Tensor, set[int]]:
    """Bytes of saved tensors by storage, the result, and the storages of parameters and buffers."""
    here = Position(Source("test", ""), 1, 1)
    names = [INPUT, *(f"x{index}" for index in range(1, len(shapes)))]
    parts = tuple(leaf(name, part, shapes[0], here) for name, part in parts_of(op))
    node = Node("op", op, tuple(names), output, here, parts=parts)
    # Further inputs stand in as identities that are replaced below.
    others = [
        Node(name, OPS["identity"](), (INPUT,), shape, here)
        for name, shape in zip(names[1:], shapes[1:], strict=True)
    ]
    graph = Graph("net", {"input": shapes[0]}, (*others, node), "op")
    roots = Roots(Sequential, Level)
    network = lower(graph, graph, lambda graph: graph, modules_of(graph), roots)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    own = {place(tensor) for tensor in [*network.parameters(), *network.buffers()]}
    for name, value in zip(names[1:], inputs[1:], strict=True):
        setattr(network, name, Given(value))
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = network(inputs[0])
    return kept, result, own


class Given(nn.Module):
    """Results in one value, whatever it is given."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return self.value


def parts_of(op: Op) -> list[tuple[str, Op]]:
    if isinstance(op, BatchNormActConv):
        return [*parts_of(op.batch_norm_act), ("conv", op.conv)]
    if isinstance(op, CatBatchNormAct):
        return [
            (f"{index}_{name}", part)
            for index, branch in enumerate(op.branches)
            if branch is not None
            for name, part in parts_of(branch) or [("activation", branch)]
        ]
    if isinstance(op, BatchNormAct | FusedMaxPool2d):
        names = ("conv", "batch_norm", "activation", "relu", "pool")
        return [(name, part) for name in names if (part := getattr(op, name, None)) is not None]
    return []


def leaf(name: str, op: Op, shape: TensorShape, here: Position) -> Node:
    return Node(name, op, (INPUT,), op.infer(shape), here)


def test_op_without_saves_is_assumed_to_keep_everything() -> None:
    class Unknown(cnngraph.Op):
        kind = "unknown"

    assert Unknown().saves(Batch(2), MAP, MAP, MAP) == Saved(inputs=(0, 1), output=True)
