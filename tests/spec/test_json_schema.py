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
    VALIDATOR.validate(spec(node))


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
    assert VALIDATOR.is_valid(broken)  # any name could be that of a block
    schema = json_schema(read_spec(path).library.blocks)
    assert not jsonschema.Draft202012Validator(schema).is_valid(broken)
