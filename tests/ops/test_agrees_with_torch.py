"""Every op's rules against the torch module it becomes, over generated settings and shapes."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from op_strategies import SETTINGS, Case
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from cnngraph.ops import OPS, Op
from cnngraph.shape import ShapeError, TensorShape

BATCH = 2
BUILT_IN = sorted(
    kind
    for kind, op in OPS.items()
    if op.__module__.startswith("cnngraph.")
    and kind not in ("max_unpool2d", "module")  # one reads two values, the other imports
)
CONVOLUTIONS_AND_PRODUCTS = [
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "linear", "linear2d",
]  # fmt: skip
INTRICATE = [
    "conv1d", "conv2d", "conv3d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "max_pool1d",
    "adaptive_avg_pool2d", "pad", "upsample",
]  # fmt: skip
"""Ops whose result depends on many settings together, and which need many examples."""

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

every_op = pytest.mark.parametrize("kind", BUILT_IN)


def generated(examples: int) -> Any:
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(max_examples=examples, deadline=None, suppress_health_check=slow)


class Emitted(nn.Module):
    """An op as lowering makes it a part of a network."""

    def __init__(self, op: Op, shape: TensorShape) -> None:
        super().__init__()
        if op.has_module:
            self.op = op.module(shape)
        self.graph = fx.Graph(self)
        value = self.graph.placeholder("x")
        self.graph.output(op.emit(self.graph, ["op"] if op.has_module else [], [value]))

    def forward(self, x: Tensor) -> Tensor:
        return fx.Interpreter(self, graph=self.graph).run(x)


def on(device: str, op: Op, shape: TensorShape) -> tuple[nn.Module, Tensor]:
    """The op's module in training, and a batch."""
    with torch.device(device):
        return Emitted(op, shape), torch.zeros(BATCH, *shape)


def torch_shape(op: Op, shape: TensorShape) -> tuple[int, ...] | None:
    """The shape torch computes; None where torch refuses, leaves nothing of the input, or pools
    nothing but padding."""
    try:
        module, batch = on("cpu", op, shape)
        value = module(batch)
        result = tuple(value.shape)
    except NotImplementedError:  # a RuntimeError, but no refusal
        raise
    except (RuntimeError, ValueError, AssertionError, IndexError):
        return None
    assert result[0] == BATCH
    return result[1:] if 0 not in result and not torch.isneginf(value).any() else None


def inferred(op: Op, shape: TensorShape) -> TensorShape | None:
    try:
        return op.infer(shape)
    except ShapeError as refusal:
        error = refusal
    assert error.help, f"no way out of: {error}"
    assert error.code in {"E201", "E202", "E203", "E204"}
    return None


def test_every_op_has_a_strategy() -> None:
    assert sorted(SETTINGS) == BUILT_IN


@every_op
def test_shape_rule_is_torchs_refusals_included(kind: str) -> None:
    """With small real tensors: the meta device accepts some arguments that torch then refuses."""

    @generated(examples=150 if kind in INTRICATE else 25)
    @given(SETTINGS[kind])
    def check(case: Case) -> None:
        arguments, shape = case
        op = OPS[kind].model_validate(arguments)
        assert inferred(op, shape) == torch_shape(op, shape)

    check()


META = [kind for kind in BUILT_IN if kind != "batch_norm"]  # its momentum of none reads a value


@pytest.mark.parametrize("kind", META)
@generated(examples=10)
@given(data=st.data())
def test_shape_rule_is_that_of_the_meta_device(kind: str, data: st.DataObject) -> None:
    arguments, shape = data.draw(SETTINGS[kind])
    op = OPS[kind].model_validate(arguments)
    result = inferred(op, shape)
    assume(result is not None)
    module, batch = on("meta", op, shape)
    assert module(batch).shape[1:] == result


@every_op
@generated(examples=20)
@given(data=st.data())
def test_parameters_and_buffers_are_those_of_the_module(kind: str, data: st.DataObject) -> None:
    arguments, shape = data.draw(SETTINGS[kind])
    op = OPS[kind].model_validate(arguments)
    assume(inferred(op, shape) is not None)
    with torch.device("meta"):
        module = Emitted(op, shape)
    parameters = {name[3:]: tuple(value.shape) for name, value in module.named_parameters()}
    state = {name[3:]: tuple(value.shape) for name, value in module.state_dict().items()}
    assert list(op.parameters(shape).items()) == list(parameters.items())
    assert list((op.parameters(shape) | op.buffers(shape)).items()) == list(state.items())


@pytest.mark.parametrize("kind", CONVOLUTIONS_AND_PRODUCTS)
@generated(examples=40)
@given(data=st.data())
def test_macs_are_half_of_torchs_flops(kind: str, data: st.DataObject) -> None:
    arguments, shape = data.draw(SETTINGS[kind])
    op = OPS[kind].model_validate(arguments)
    output = inferred(op, shape)
    assume(output is not None)
    assert output is not None
    module, batch = on("meta", op, shape)
    with FlopCounterMode(display=False) as counter:
        module(batch)
    assert 2 * BATCH * op.macs(output, shape) == counter.get_total_flops()


@pytest.mark.parametrize("kind", sorted(set(BUILT_IN) - set(CONVOLUTIONS_AND_PRODUCTS)))
@generated(examples=2)
@given(data=st.data())
def test_only_convolutions_and_linear_layers_cost_macs(kind: str, data: st.DataObject) -> None:
    arguments, shape = data.draw(SETTINGS[kind])
    op = OPS[kind].model_validate(arguments)
    assert op.macs(shape, shape) == 0


@every_op
@generated(examples=5)
@given(data=st.data())
def test_ops_are_values(kind: str, data: st.DataObject) -> None:
    """Equal, hashable, picklable, printable and rebuilt from what they dump."""
    arguments, _ = data.draw(SETTINGS[kind])
    op = OPS[kind].model_validate(arguments)
    for same in (
        OPS[kind].model_validate(arguments),
        OPS[kind].model_validate(op.model_dump()),
        pickle.loads(pickle.dumps(op)),
    ):
        assert same == op
        assert hash(same) == hash(op)
    assert str(op).startswith(kind)


@every_op
def test_fields_are_torchs_with_torchs_defaults(kind: str) -> None:
    """Every field left out is what the torch module itself would take."""
    ours = {
        name: field for name, field in OPS[kind].model_fields.items() if not field.is_required()
    }
    expected = TORCH_DEFAULTS.get(kind, {})
    assert {name: field.get_default() for name, field in ours.items()} == expected


def _defaults(module: type[nn.Module], *ours: str) -> dict[str, Any]:
    """The defaults of a torch module for these fields, sizes as the op stores them."""
    rank = {"1d": 1, "3d": 3}.get(module.__name__[-2:], 2)
    pairs = {"stride", "padding", "dilation", "output_padding"}
    signature = inspect.signature(module).parameters
    defaults = {name: signature[name].default for name in ours}
    return {
        name: (value,) * rank if name in pairs and type(value) is int else value
        for name, value in defaults.items()
    }


_conv = ("stride", "padding", "dilation", "groups", "bias")
_running = ("eps", "momentum", "affine", "track_running_stats")
TORCH_DEFAULTS: dict[str, dict[str, Any]] = {
    **{
        f"{kind}{rank}d": defaults
        for rank in (1, 2, 3)
        for kind, defaults in {
            "conv": _defaults(getattr(nn, f"Conv{rank}d"), *_conv, "padding_mode"),
            "conv_transpose": _defaults(
                getattr(nn, f"ConvTranspose{rank}d"), *_conv, "output_padding"
            ),
            "max_pool": {"stride": None}
            | _defaults(getattr(nn, f"MaxPool{rank}d"), "padding", "dilation", "ceil_mode"),
            "avg_pool": {"stride": None}
            | _defaults(
                getattr(nn, f"AvgPool{rank}d"),
                "padding",
                "ceil_mode",
                "count_include_pad",
                *["divisor_override"] * (rank > 1),
            ),
            "dropout": _defaults(getattr(nn, f"Dropout{rank}d"), "p"),
        }.items()
    },
    "batch_norm": _defaults(nn.BatchNorm2d, *_running),
    "instance_norm": _defaults(nn.InstanceNorm2d, *_running),
    "layer_norm": _defaults(nn.LayerNorm, "eps", "elementwise_affine", "bias"),
    "group_norm": _defaults(nn.GroupNorm, "eps", "affine"),
    "local_response_norm": _defaults(nn.LocalResponseNorm, "alpha", "beta", "k"),
    "linear": _defaults(nn.Linear, "bias"),
    "linear2d": _defaults(nn.Linear, "bias"),
    "upsample": {"like": None}
    | _defaults(nn.Upsample, "size", "scale_factor", "mode", "align_corners"),
    "pad": {"padding": None, "like": None, "mode": "constant", "value": 0.0},
    "crop": {"size": None, "like": None},
    "flatten": _defaults(nn.Flatten, "start_dim"),
    "unflatten": {"dim": 1},
    "slice": {"start": 0, "end": None},
    "channel_bias": {"init_value": 0.0},
    "global_response_norm": {"eps": 1e-6},
    "dropout": _defaults(nn.Dropout, "p"),
    "alpha_dropout": _defaults(nn.AlphaDropout, "p"),
    "layer_scale": {"init_value": 1e-6},
    "leaky_relu": _defaults(nn.LeakyReLU, "negative_slope"),
    "prelu": _defaults(nn.PReLU, "num_parameters", "init"),
    "elu": _defaults(nn.ELU, "alpha"),
    "celu": _defaults(nn.CELU, "alpha"),
    "gelu": _defaults(nn.GELU, "approximate"),
    "softplus": _defaults(nn.Softplus, "beta", "threshold"),
    "hardtanh": _defaults(nn.Hardtanh, "min_val", "max_val"),
}


@every_op
@generated(examples=15)
@given(data=st.data())
def test_op_declares_that_it_changes_the_channels(kind: str, data: st.DataObject) -> None:
    arguments, shape = data.draw(SETTINGS[kind])
    op = OPS[kind].model_validate(arguments)
    result = inferred(op, shape)
    assume(result is not None)
    assert result is not None
    assert op.sets_channels or result.channels == shape.channels
