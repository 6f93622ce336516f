"""The JSON Schema accepts what the language accepts, and flags what an editor can know to be
wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, SPECS

import cnngraph
from cnngraph.checker import read_spec
from cnngraph.errors import Source
from cnngraph.ops import OPS
from cnngraph.spec.document import COMPOSITES
from cnngraph.spec.json_schema import DIALECT, fields, json_schema
from cnngraph.spec.yaml import parse_yaml

GOLDENS = ROOT / "tests" / "goldens"
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def data(text: str, name: str = "spec") -> Any:
    return lists(parse_yaml(Source(name, text)).plain())


def lists(value: Any) -> Any:
    if isinstance(value, tuple):
        return [lists(item) for item in value]
    return {key: lists(item) for key, item in value.items()} if isinstance(value, dict) else value


def spec(node: str) -> Any:
    return data(f"cnngraph: 1\nname: net\ninput: [3, 32, 32]\ngraph:\n  - {node}\n")


def spec_with_blocks(node: str) -> Any:
    """A spec in which other kinds of nodes may be blocks."""
    return {**spec(node), "imports": ["blocks.yaml"]}


def test_the_schema_is_valid_and_reproducible() -> None:
    assert SCHEMA["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert cnngraph.json_schema() == SCHEMA


@pytest.mark.parametrize(
    "path", sorted(SPECS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(SPECS))
)
def test_every_shipped_file_is_accepted(path: Path) -> None:
    errors = [error.message for error in VALIDATOR.iter_errors(data(path.read_text(), str(path)))]
    assert not errors


@pytest.mark.parametrize("kind", [*OPS, *COMPOSITES])
def test_every_kind_is_described_with_all_its_arguments(kind: str) -> None:
    model = OPS.get(kind) or COMPOSITES[kind]
    definition = SCHEMA["$defs"][f"arguments_of_{kind}"]
    assert definition["description"]
    properties = definition["anyOf"][0]["properties"]
    shared = set() if kind == "from" else {"name", "from"}
    shared |= {"init", "pass_params"} if kind in OPS else set()
    assert set(properties) == {*fields(model), *shared}
    assert definition["anyOf"][0]["additionalProperties"] is False


ACCEPTED = [
    "relu",
    "relu: ~",
    "conv2d: {out_channels: 8, kernel_size: 3, init: {weight: ones, bias: {normal: {std: 0.1}}}}",
    "residual: {body: relu, shortcut: ~}",
    "größe: 3",
    "linear: 10",
    'linear: "${classes}"',
    "linear: {out_features: 10, name: fc}",
    'conv2d: {out_channels: "${w[0]}", kernel_size: [3, "${k}"], padding: same, name: "conv${i}"}',
    'conv2d: {out_channels: 8, kernel_size: "${k}", bias: "${b}", padding_mode: "${mode}"}',
    "batch_norm: {eps: 1e-3}",
    "from: skip",
    'from: "${skip}"',
    "relu: {from: skip}",
    "sequential: {from: skip, body: relu}",
    "concat: [skip, .]",
    "${activation}",
    '"${block}": {width: 64}',
    "my_block",
    "my_block: {anything: [1, {two: 3}], name: ~}",
    "my_block: 3",
    "parallel: {left: relu, right: [relu, relu]}",
    "parallel: {left: relu, right: {linear: 3}, merge: add, name: ~}",
    "parallel: {branches: [relu, [relu, relu]], merge: multiply}",
    "parallel: [relu, [relu]]",
    "residual: [relu, relu]",
    "residual: {body: relu, shortcut: project, scale: 0.1, name: ~}",
    "residual: {body: relu, shortcut: [{conv2d: {out_channels: 3, kernel_size: 1}}]}",
    "dense: {layers: 3, body: relu, index: k}",
    "repeat: {times: 3, body: relu}",
    'when: {test: "${stride > 1}", body: relu}',
    "when: {test: true, body: [relu], name: w}",
    'repeat: {over: "${layers}", as: [a, b], body: [relu]}',
    "repeat: {over: [1, [2, 3]], as: w, body: [relu]}",
    "aux: {name: side, body: [flatten, {linear: 10}]}",
    "concat: skip",
    "concat: [skip, other]",
    "add: {with: [skip], name: sum}",
    "sequential: {name: features, body: [relu]}",
    "sequential: relu",
    "[relu, [relu]]",
]


@pytest.mark.parametrize("node", ACCEPTED)
def test_nodes_of_every_form_are_accepted(node: str) -> None:
    VALIDATOR.validate(spec_with_blocks(node))


REJECTED = [
    "conv2d",
    "conv2d: {out_chanels: 8, kernel_size: 3}",
    "conv2d: {out_channels: 8}",
    "conv2d: {out_channels: 0, kernel_size: 3}",
    "conv2d: {out_channels: eight, kernel_size: 3}",
    "conv2d: {out_channels: 8, kernel_size: [3, 3, 3]}",
    "conv2d: {out_channels: 8, kernel_size: 3, padding: samee}",
    'conv2d: {out_channels: 8, kernel_size: 3, bias: "false"}',
    "conv2d: {in_channels: 3, out_channels: 8, kernel_size: 3}",
    "conv2d: {out_channels: 8, kernel_size: 3, name: a..b}",
    "relu: {nmae: act}",
    "relu: {name: ~}",
    "linear: ten",
    "linear",
    "max_pool2d: {kernel_size: 3, ceil_mod: true}",
    "dropout: {p: 1.5}",
    "residual: {body: relu, shortcut: 3}",
    "residual: {bdy: relu}",
    "residual: {body: relu, scale: big}",
    "parallel: {branches: [relu], merge: concatenate}",
    "parallel: {branches: [relu], marge: add}",
    "dense: {layers: 0, body: relu}",
    "repeat: {times: -1, body: relu}",
    "repeat: {times: 3}",
    "when: {test: 1, body: relu}",
    "when: relu",
    "aux: {body: [relu]}",
    "concat",
    "sequential: {body: [{conv2d: {out_chanels: 8}}]}",
    "repeat: {times: 2, over: [1], as: w, body: relu}",
    "repeat: {over: [1], body: relu}",
    "repeat: {times: 2, as: w, body: relu}",
    "repeat: {times: ~, body: relu}",
    "repeat: {times: 2, index: max, body: relu}",
    "aux: {name: logits, body: [flatten, {linear: 10}]}",
    "relu: {name: _private}",
    "conv2d: {out_channels: 8, kernel_size: 3, init: kaiming}",
    "conv2d: {out_channels: 8, kernel_size: 3, init: {normal: {sd: 1}}}",
    "not-a-block",
    "not-a-block: {a: 1}",
    "3",
    "{relu: ~, name: act}",
    "{}",
]


@pytest.mark.parametrize("node", REJECTED)
def test_typical_mistakes_are_flagged(node: str) -> None:
    assert not VALIDATOR.is_valid(spec(node))


DOCUMENTS = [
    ("cnngraph: 1\nblocks: {b: {params: {w: ~, k: 3}, body: [relu]}}", True),
    ("cnngraph: 1\nextends: resnet.yaml\nname: r50\nparams: {layers: [3, 4, 6, 3]}", True),
    (
        "cnngraph: 1\nname: n\ninput: [3, '${size}', '${size}']\nparams: {size: 32}\ngraph: relu",
        True,
    ),
    ("cnngraph: 1\nname: n\ninput: '${shape}'\nparams: {shape: [3, 4, 4]}\ngraph: [relu]", True),
    (
        "cnngraph: 1\nname: n\ninput: [4]\ngraph: [relu]\nexpect: {params: 0, shapes: {a: [4]}}",
        True,
    ),
    ("cnngraph: 1\nname: n\ninputs: {a: [4], b: [3, '${s}', 8]}\noutputs: [x]\ngraph: relu", True),
    ("cnngraph: 1\nname: n\ninput: [4]\noutputs: {a: x, b: .}\ngraph: relu", True),
    ("cnngraph: 1\nname: n\ninput: [4]\ninputs: {a: [4]}\ngraph: relu", False),
    ("cnngraph: 1\nname: n\ninput: [4]\nparams: ~\noutputs: '${x}'\ngraph: relu", True),
    ("cnngraph: 1\nname: n\ninput: [4]\nparams: {max: 1}\ngraph: relu", False),
    ("cnngraph: 1\nname: n\ninput: [4]\nparams: {a: {b: 1}}\ngraph: relu", False),
    ("cnngraph: 1\nname: n\ninputs: {a__b: [4]}\ngraph: relu", False),
    (
        "cnngraph: 1\nname: n\ninput: [4]\ninit: {conv2d: zeros, zero_last_norm: true}\ngraph: relu",
        True,
    ),
    ("cnngraph: 1\nname: n\ninput: [4]\ninit: {conv: zeros}\ngraph: relu", False),
    ("cnngraph: 1\nimports: [/etc/a.yaml]", False),
    ("cnngraph: 1\nextends: a.py", False),
    ("cnngraph: 1", False),
    ("cnngraph: 1\nblocks: {relu: {body: tanh}}", False),
    ("cnngraph: 1\nblocks: {b: {params: {name: 1}, body: tanh}}", False),
    ("cnngraph: 1\nname: n\ninputs: [4]\ngraph: relu", False),
    ("cnngraph: 2\nname: n\ninput: [4]\ngraph: [relu]", False),
    ("name: n\ninput: [4]\ngraph: [relu]", False),
    ("cnngraph: 1\nname: n\ngraph: [relu]", False),
    ("cnngraph: 1\nname: n\ninput: [4]\ngraf: [relu]", False),
    ("cnngraph: 1\nname: n\ninput: [3, 4, 4, 4]\ngraph: [relu]", True),
    ("cnngraph: 1\nname: n\ninput: [3, 4, 4, 4, 4]\ngraph: [relu]", False),
    ("cnngraph: 1\nextends: resnet.yaml\ngraph: [relu]", False),
    ("cnngraph: 1\nblocks: {b: {param: {w: 1}, body: [relu]}}", False),
    ("cnngraph: 1\nname: n\ninput: [4]\ngraph: [relu]\nexpect: {parameters: 0}", False),
]


@pytest.mark.parametrize(("text", "valid"), DOCUMENTS)
def test_documents(text: str, valid: bool) -> None:
    assert VALIDATOR.is_valid(data(text)) == valid


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(SPECS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(SPECS))
)
def test_the_schema_with_its_blocks_accepts_every_shipped_file(path: Path) -> None:
    schema = json_schema(read_spec(path).library.blocks)
    validator = jsonschema.Draft202012Validator(schema)
    assert not [error.message for error in validator.iter_errors(data(path.read_text(), str(path)))]


@pytest.mark.parametrize(
    "name",
    ["unknown_op", "ops_named_as_in_other_libraries", "block_unknown_param", "block_missing_param"],
)
def test_the_schema_with_its_blocks_rejects_unknown_kinds_and_arguments(name: str) -> None:
    path = GOLDENS / f"{name}.yaml"
    broken = data(path.read_text(), str(path))
    assert VALIDATOR.is_valid(broken) == ("imports" in broken or "blocks" in broken)
    schema = json_schema(read_spec(path).library.blocks)
    assert not jsonschema.Draft202012Validator(schema).is_valid(broken)


def test_without_blocks_a_node_is_an_op() -> None:
    nested = ["Conv2d: 3", "sequential: [Conv2d: 3]", "parallel: {a: relu, b: [Conv2d: 3]}", "ReLU"]
    assert [VALIDATOR.is_valid(spec(node)) for node in nested] == [False] * 4
    assert all(VALIDATOR.is_valid(spec_with_blocks(node)) for node in nested)


NOT_A_SCHEMAS = {
    **dict.fromkeys(["E001", "E002", "E003", "E004"], "it is about the file, not its data"),
    "E105": "it is inside the text of an expression",
    **dict.fromkeys(["E106", "E108", "E109"], "it is about several nodes"),
    "E110": "it is about a total",
    **dict.fromkeys(["E111", "E112", "E113", "E115"], "it is about another file"),
    **dict.fromkeys(["E117", "E118"], "it is about Python code"),
    **dict.fromkeys(["E201", "E202", "E203"], "it is about shapes"),
    "E204": "it is about several values, and often shapes",
    "E301": "it is about the whole network",
}
"""Mistakes that no schema can see, by the code of their diagnostic."""

INVISIBLE = {
    "aux_nested": "E107: blocks may be between the two",
    "expression_float_for_integer": "E103: in JSON, 32.0 is an integer",
    "expression_long_value_shown": "E103: the value of an expression",
    "expression_wrong_type": "E103: the value of an expression",
    "extends_wrong_type": "E103: the param of another file",
    "init_of_node_without_weights": "E103: what weights an op has depends on its arguments",
    "parallel_all_absent": "E103: the value of an expression",
    "param_required": "E102: a value from the command line is missing",
    "repeat_unpacks_wrong_count": "E103: the length of another list",
    "residual_shortcut_expression": "E104, E107: the value of an expression",
}
"""Broken specs of other codes that the schema accepts, and why."""


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_broken_spec_is_rejected_if_a_schema_can_see_it(path: Path) -> None:
    errors = [item for item in cnngraph.check(path).diagnostics if item.severity == "error"]
    visible = {item.code for item in errors} - NOT_A_SCHEMAS.keys()
    if errors and not visible:
        return
    try:
        written = data(path.read_text(), str(path))
    except cnngraph.SpecError:
        return
    validator = VALIDATOR
    if isinstance(written, dict) and not {"blocks", "imports"}.isdisjoint(written):
        blocks = read_spec(path).library.blocks
        validator = jsonschema.Draft202012Validator(json_schema(blocks))
    expected = not errors or path.stem in INVISIBLE
    assert validator.is_valid(written) == expected, visible


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ("{width: 3}", True),
        ("{width: three}", False),
        ("{width: '${3}'}", True),
        ("{width: [3, 4]}", True),
        ("{width: [3, x]}", False),
        ("{width: ~}", False),
        ("{width: 1.5}", False),
        ("{width: true}", False),
        ("{rate: 1}", True),
        ("{rate: '1'}", False),
        ("{act: sigmoid}", True),
        ("{act: 1}", False),
        ("{bias: false}", True),
        ("{bias: 0}", False),
        ("{sizes: [1, a]}", True),
        ("{sizes: 1}", False),
        ("{free: [1, a]}", True),
        ("{free: 1.5}", True),
        ("{free: {a: 1}}", False),
        ("{made: 1}", True),
    ],
)
def test_the_arguments_of_blocks_have_the_types_of_their_defaults(
    arguments: str, valid: bool, tmp_path: Path
) -> None:
    if "free" not in arguments:
        arguments = arguments.replace("{", "{free: 1, ", 1)
    text = (
        "cnngraph: 1\nname: net\ninput: [3, 8, 8]\nblocks:\n  b:\n    params: {width: 8, rate: 0.5,"
        " act: relu, bias: true, sizes: [1], free: ~, made: '${1 + 1}'}\n    body: relu\n"
        f"graph:\n  - b: {arguments}\n"
    )
    path = tmp_path / "net.yaml"
    path.write_text(text)
    assert cnngraph.check(path).ok == valid
    schema = json_schema(read_spec(path).library.blocks)
    assert jsonschema.Draft202012Validator(schema).is_valid(data(text)) == valid
