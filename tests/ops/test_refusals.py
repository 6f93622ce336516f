"""What ops refuse: wrong settings in one clear sentence, wrong shapes with a code and a way out."""

from __future__ import annotations

import subprocess
import sys

import pytest
from op_strategies import SETTINGS
from pydantic import ValidationError

from cnngraph.ops import OPS
from cnngraph.ops.merge import Add, Concat, Multiply
from cnngraph.shape import ShapeError, TensorShape

FLAT, MAP = TensorShape((4,)), TensorShape((4, 8, 8))

PAIR = "must be a whole number of at least 1 or a list of two, [height, width]"
PADDING = "must be a whole number of at least 0 or a list of two, [height, width], or `same`"
OUTPUT_SIZE = f"{PAIR}, in which null keeps the input's"

REQUIRED = {
    "avg_pool2d": {"kernel_size": 1},
    "conv2d": {"out_channels": 1, "kernel_size": 1},
    "linear": {"out_features": 1},
    "max_pool2d": {"kernel_size": 1},
    "normalize": {"mean": (0.0, 0.0)},
}

ON_MAPS_ONLY = [
    ("instance_norm", {}),
    ("local_response_norm", {"size": 5}),
    ("max_pool2d", {"kernel_size": 2}),
    ("avg_pool2d", {"kernel_size": 2}),
    ("adaptive_avg_pool2d", {"output_size": 1}),
    ("adaptive_max_pool2d", {"output_size": 1}),
    ("global_avg_pool2d", {}),
    ("global_max_pool2d", {}),
    ("upsample", {"scale_factor": 2}),
    ("pad", {"padding": 1}),
    ("channel_shuffle", {"groups": 2}),
    ("pixel_shuffle", {"upscale_factor": 2}),
    ("pixel_unshuffle", {"downscale_factor": 2}),
    ("dropout2d", {}),
    ("dropout3d", {}),
    ("conv1d", {"out_channels": 4, "kernel_size": 1}),
    ("conv3d", {"out_channels": 4, "kernel_size": 1}),
    ("max_pool1d", {"kernel_size": 2}),
    ("global_avg_pool3d", {}),
    ("channel_mean", {}),
    ("channel_max", {}),
    ("global_response_norm", {}),
    ("crop", {"size": 2}),
    ("normalize", {"mean": (0.0,) * 4, "std": (1.0,) * 4}),
    ("conv2d", {"out_channels": 4, "kernel_size": 1}),
    ("linear2d", {"out_features": 4}),
    ("conv_transpose2d", {"out_channels": 4, "kernel_size": 1}),
]


def refusal(op, *shapes: TensorShape) -> ShapeError:
    with pytest.raises(ShapeError) as raised:
        op.infer(*shapes)
    assert raised.value.help
    return raised.value


@pytest.mark.parametrize("argument", ["stride", "padding", "dilation"])
def test_sizes_have_a_limit(argument: str) -> None:
    OPS["conv2d"].model_validate({"out_channels": 1, "kernel_size": 3, argument: 2**29})
    with pytest.raises(ValidationError, match="must be at most 536870912"):
        OPS["conv2d"].model_validate({"out_channels": 1, "kernel_size": 3, argument: 2**29 + 1})


@pytest.mark.parametrize(("kind", "arguments"), ON_MAPS_ONLY)
def test_ops_on_maps_refuse_flat_values(kind: str, arguments) -> None:
    assert refusal(OPS[kind].model_validate(arguments), FLAT).code == "E203"


def test_linear_on_a_map_suggests_how_to_flatten_it() -> None:
    error = refusal(OPS["linear"].model_validate({"out_features": 10}), MAP)
    assert error.code == "E203"
    assert "4x8x8" in str(error)
    assert "`flatten`" in error.help
    assert "256 features" in error.help


@pytest.mark.parametrize(
    ("kind", "arguments", "shape", "code"),
    [
        ("group_norm", {"num_groups": 3}, MAP, "E204"),
        ("instance_norm", {}, TensorShape((4, 1, 1)), "E202"),
        ("prelu", {"num_parameters": 3}, MAP, "E204"),
        ("hardtanh", {"min_val": 1, "max_val": 1}, MAP, "E204"),
        ("glu", {}, TensorShape((3, 8, 8)), "E204"),
        ("upsample", {}, MAP, "E204"),
        ("upsample", {"size": 4, "scale_factor": 2}, MAP, "E204"),
        ("upsample", {"size": 4, "align_corners": False}, MAP, "E204"),
        ("upsample", {"scale_factor": 0.1}, MAP, "E202"),
        ("pad", {"padding": 8, "mode": "reflect"}, MAP, "E202"),
        ("pad", {"padding": 9, "mode": "circular"}, MAP, "E202"),
        ("pad", {"padding": -4}, MAP, "E202"),
        ("pad", {"padding": -1, "mode": "replicate"}, MAP, "E204"),
        ("pad", {"padding": 1, "mode": "reflect", "value": 1}, MAP, "E204"),
        ("channel_shuffle", {"groups": 3}, MAP, "E204"),
        ("chunk", {"chunks": 3, "index": 0}, MAP, "E204"),
        ("chunk", {"chunks": 2, "index": 2}, FLAT, "E204"),
        ("pixel_shuffle", {"upscale_factor": 3}, MAP, "E204"),
        ("pixel_unshuffle", {"downscale_factor": 3}, MAP, "E204"),
        (
            "conv2d",
            {"out_channels": 1, "kernel_size": 5, "dilation": 2**29, "padding": "same"},
            MAP,
            "E204",
        ),
        ("normalize", {"mean": (0.5,), "std": (1.0,) * 4}, MAP, "E204"),
        ("normalize", {"mean": (0.5,) * 4, "std": (1.0,)}, MAP, "E204"),
    ],
)
def test_codes(kind: str, arguments, shape: TensorShape, code: str) -> None:
    assert refusal(OPS[kind].model_validate(arguments), shape).code == code


def test_merges() -> None:
    odd = TensorShape((4, 7, 8))
    assert Concat().infer(MAP, MAP) == (8, 8, 8)
    assert Multiply().infer(MAP, TensorShape((4, 1, 1))) == MAP
    assert Multiply().infer(TensorShape((1, 8, 8)), MAP) == MAP
    for op in (Concat(), Add(), Multiply()):
        assert refusal(op, MAP, odd).code == "E201"
        assert refusal(op, MAP, FLAT).code == "E201"
    assert refusal(Add(), MAP, TensorShape((4, 1, 1))).code == "E201"


@pytest.mark.parametrize(
    ("kind", "field", "value", "sentence"),
    [
        ("linear", "out_features", "3", None),
        ("linear", "out_features", True, None),
        ("linear", "out_features", 3.0, None),
        ("linear", "out_features", 0, None),
        ("linear", "bias", 1, None),
        ("conv2d", "kernel_size", "3", PAIR),
        ("conv2d", "kernel_size", True, PAIR),
        ("conv2d", "kernel_size", (3, 3, 3), PAIR),
        ("max_pool2d", "kernel_size", 0, PAIR),
        ("max_pool2d", "padding", -1, PADDING),
        ("avg_pool2d", "divisor_override", 0, None),
        ("adaptive_avg_pool2d", "output_size", None, OUTPUT_SIZE),
        ("adaptive_max_pool2d", "output_size", (True, 1), OUTPUT_SIZE),
        (
            "pad",
            "padding",
            (1, 1),
            "must be a whole number or a list of four, [left, right, top, bottom]",
        ),
        (
            "upsample",
            "scale_factor",
            0,
            "must be a number greater than 0 or a list of two, [height, width]",
        ),
        ("upsample", "mode", "cubic", None),
        ("dropout", "p", 1.5, "must be a number from 0 to 1"),
        ("dropout", "p", True, "must be a number from 0 to 1"),
        ("dropout", "p", "0.5", "must be a number from 0 to 1"),
        ("dropout", "p", float("nan"), "must be a number from 0 to 1"),
        ("batch_norm", "momentum", -0.1, "must be a number from 0 to 1"),
        ("batch_norm", "eps", 0, "must be a number greater than 0"),
        ("scale", "factor", float("inf"), "must be a finite number"),
        ("scale", "factor", 10**400, "must be a finite number"),
        ("normalize", "std", (1.0, 0.0), "must be a number greater than 0"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_settings_are_refused_in_one_sentence(
    kind: str, field: str, value, sentence: str | None
) -> None:
    with pytest.raises(ValidationError) as raised:
        OPS[kind].model_validate({**REQUIRED.get(kind, {}), field: value})
    (error,) = raised.value.errors()
    assert error["loc"][0] == field
    if sentence is not None:
        assert str(error["ctx"]["error"]) == sentence


@pytest.mark.parametrize("kind", sorted(SETTINGS))
def test_every_op_is_documented_and_has_a_schema(kind: str) -> None:
    op = OPS[kind]
    first = (op.__doc__ or "").splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 110
    schema = op.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(op.model_fields)
    assert op.main is None or op.main in op.model_fields
    for arguments in ({"inplace": True}, {"in_channels": 3}, {"in_features": 3}):
        with pytest.raises(ValidationError):
            op.model_validate(arguments)


def test_importing_the_ops_does_not_import_torch() -> None:
    script = (
        "import sys, cnngraph.ops; assert 'torch' not in sys.modules; assert 'numpy' not in "
        "sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
