"""The JSON Schema of the language, made from the pydantic models, for editors.

It describes a single file. Names of blocks, shapes and values of expressions are left to `check`:
any value may be an expression, and a node of unknown kind is the call of a block.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel
from pydantic.json_schema import CoreRef, GenerateJsonSchema, JsonRef

from cnngraph.ops import OPS, Op, load_plugins
from cnngraph.spec.document import (
    COMPOSITES,
    IDENTIFIER,
    PASS_PARAMS,
    BlockDefinition,
    Composite,
    Document,
    From,
    Parallel,
    Repeat,
    main_key,
)
from cnngraph.spec.expressions import is_expression
from cnngraph.spec.initial import SCHEMES_SCHEMA, schemes_schema

if TYPE_CHECKING:
    from cnngraph.spec.spec import Block
    from cnngraph.spec.yaml import Located

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_EXPRESSION_PATTERN = r"\$\{"
_EXPRESSION: Schema = {"$ref": "#/$defs/expression"}
_BODY: Schema = {"$ref": "#/$defs/body"}
_NAME: Schema = {"$ref": "#/$defs/name"}
_PASS_PARAMS: Schema = {
    "type": "boolean",
    "description": "Passes on the params of the enclosing block that this node also takes.",
}
_FROM: Schema = {"type": "string", "description": "The name of the value that the node reads."}
_BLOCK_NAME: Schema = {"pattern": IDENTIFIER}
_LEVEL_NAME: Schema = {"anyOf": [_NAME, {"type": "null"}]}

_INIT: Schema = {"$ref": "#/$defs/init"}
_OF_INIT = "How the op's weights are initialised: a scheme, or schemes of weight and bias."
_OF_NODES = ("body", "nodes", "node", "bare_node", "node_with_arguments")

_DEFINITIONS: dict[str, Schema] = {
    "expression": {
        "type": "string",
        "pattern": _EXPRESSION_PATTERN,
        "description": "Text with `${...}`: params, loop variables, in_channels, arithmetic.",
    },
    "name": {
        "description": "The node's name, which is part of the keys of its weights.",
        "anyOf": [
            {"type": "string", "pattern": r"^[A-Za-z0-9][\w-]*(\.[A-Za-z0-9][\w-]*)*$"},
            {"type": "integer", "minimum": 0},
            _EXPRESSION,
        ],
    },
    "body": {
        "description": "Nodes one after another, or a single node.",
        "anyOf": [{"$ref": "#/$defs/node"}, {"$ref": "#/$defs/nodes"}],
    },
    "nodes": {"type": "array", "items": _BODY},
}


def json_schema(blocks: Mapping[str, Block] | None = None) -> Schema:
    """The JSON Schema (draft 2020-12) of specs and block libraries, with the ops of plugins.

    Args:
        blocks: the blocks that the file defines and imports. If they are given, a node of any other
            kind is a mistake, and so is an argument that its block does not have.
    """
    load_plugins()
    arguments = {kind: _composite_arguments(model) for kind, model in COMPOSITES.items()}
    arguments |= {kind: _op_arguments(op) for kind, op in OPS.items()}
    document = _model(Document)
    shape = {**document["properties"]["input"], "items": {"type": "integer", "minimum": 1}}
    document["properties"]["input"] = _or_expression(shape)
    document["properties"]["inputs"]["additionalProperties"] = _or_expression(shape)
    document["properties"]["outputs"] = _or_expression(document["properties"]["outputs"])
    init = document["properties"]["init"]["anyOf"][0]
    init["properties"] |= dict.fromkeys(OPS, SCHEMES_SCHEMA)
    init["additionalProperties"] = False
    document["properties"]["blocks"]["propertyNames"]["not"] = {"enum": [*arguments]}
    definitions = {
        **_DEFINITIONS,
        "schemes": schemes_schema(),
        "init": {"description": _OF_INIT, **_or_expression(schemes_schema())},
        "node": {
            "description": "`kind`, or `kind: arguments`: an op, a composite, or a block.",
            "anyOf": [{"$ref": "#/$defs/bare_node"}, {"$ref": "#/$defs/node_with_arguments"}],
        },
        "bare_node": {
            "type": "string",
            "minLength": 1,
            "not": {
                "enum": [kind for kind, schema in arguments.items() if not _accepts_none(schema)]
            },
            "anyOf": [
                {"enum": [kind for kind, schema in arguments.items() if _accepts_none(schema)]},
                {"description": "A block.", **_BLOCK_NAME},
                _EXPRESSION,
            ],
        },
        "node_with_arguments": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {kind: {"$ref": f"#/$defs/{_definition(kind)}"} for kind in arguments},
            "patternProperties": {_EXPRESSION_PATTERN: True, _BLOCK_NAME["pattern"]: True},
            "additionalProperties": False,
        },
        "BlockDefinition": _model(BlockDefinition),
        **document.pop("$defs", {}),
        **{_definition(kind): schema for kind, schema in arguments.items()},
    }
    composites = [_definition(kind) for kind in COMPOSITES]
    if blocks is not None:
        _add_blocks(definitions["node_with_arguments"], definitions["bare_node"], blocks)
    else:
        definitions |= _without_blocks(definitions, [*_OF_NODES, *composites])
    return {
        "$schema": DIALECT,
        "title": "cnngraph spec",
        "description": "One network, or a library of blocks, in the language of cnngraph.",
        **{key: value for key, value in document.items() if key not in ("title", "description")},
        **_KINDS_OF_FILES,
        **(_OPS_ALONE if blocks is None else {}),
        "$defs": definitions,
    }


def _has(*keys: str) -> Schema:
    """Documents with one of these keys."""
    return {"anyOf": [{"required": [key]} for key in keys]}


_KINDS_OF_FILES: Schema = {
    "not": {"required": ["input", "inputs"]},
    "anyOf": [
        {"required": ["name", "graph"], **_has("input", "inputs")},
        {
            "required": ["extends"],
            "properties": dict.fromkeys(("imports", "plugins", "blocks", "graph"), False),
        },
        {
            **_has("blocks", "imports"),
            "not": _has("extends", "input", "inputs", "outputs", "params", "graph", "expect"),
        },
    ],
}
"""A file is a network, a variant or a library."""

_OPS_ALONE: Schema = {
    "if": {"not": _has("blocks", "imports", "plugins")},
    "then": {"properties": {"graph": {"$ref": "#/$defs/body_without_blocks"}}},
}
"""Without blocks and plugins, a node is an op or a composite."""


def _without_blocks(definitions: Mapping[str, Schema], names: Sequence[str]) -> dict[str, Schema]:
    """The definitions of nodes, and of what contains nodes, in a file that can call no block."""
    text = json.dumps({name: definitions[name] for name in names})
    for name in names:
        text = text.replace(f'"#/$defs/{name}"', f'"#/$defs/{name}_without_blocks"')
    found = {f"{name}_without_blocks": schema for name, schema in json.loads(text).items()}
    _add_blocks(found["node_with_arguments_without_blocks"], found["bare_node_without_blocks"], {})
    return found


def _add_blocks(named: Schema, bare_node: Schema, blocks: Mapping[str, Block]) -> None:
    """Makes the schemas of nodes accept calls of these blocks, and no other kinds."""
    named["properties"] |= {name: _call_of(block) for name, block in blocks.items()}
    named["patternProperties"] = {_EXPRESSION_PATTERN: True}
    named["additionalProperties"] = False
    optional = [name for name, block in blocks.items() if not _required_of(block)]
    bare_node["anyOf"][1:] = [{"enum": optional}] * bool(optional) + [_EXPRESSION]


def _call_of(block: Block) -> Schema:
    """What may follow the name of a block: its params, the only required one alone, or nothing."""
    needed = _required_of(block)
    params = {name: _argument_like(default) for name, default in block.params.items()}
    properties = {**params, "name": _LEVEL_NAME, "from": _FROM, PASS_PARAMS: _PASS_PARAMS}
    forms: list[Schema] = [
        {
            "type": "object",
            "properties": properties,
            "anyOf": [{"required": needed}, {"required": [PASS_PARAMS]}],
            "additionalProperties": False,
        }
    ]
    if not needed:
        forms.append({"type": "null"})
    if len(needed) == 1:
        forms.append({"not": {"type": ["object", "null"]}})
    return {"anyOf": forms}


def _argument_like(default: Located) -> Schema:
    """The arguments that can replace a block's default: values of its type, as `check` has it."""
    match default.value:
        case bool():
            kinds: list[Schema] = [{"type": "boolean"}]
        case int():
            item = {"anyOf": [{"type": "integer"}, _EXPRESSION]}
            kinds = [{"type": "integer"}, {"type": "array", "items": item}]
        case float():
            kinds = [{"type": "number"}]
        case list():
            kinds = [{"type": "array"}]
        case str() as text if not is_expression(text):
            return {"type": "string"}
        case _:
            return {"not": {"type": "object"}}
    return {"anyOf": [*kinds, _EXPRESSION]}


def _required_of(block: Block) -> list[str]:
    return [name for name, default in block.params.items() if default.value is None]


def fields(model: type[BaseModel]) -> dict[str, Schema]:
    """The arguments of an op or composite, as users write them -> schema, without expressions."""
    return _model(model).get("properties", {})


def required(model: type[BaseModel]) -> list[str]:
    """The arguments without a default."""
    return _model(model).get("required", [])


def _op_arguments(op: type[Op]) -> Schema:
    schema = _arguments(op, _NAME)
    schema["anyOf"][0]["properties"].setdefault("init", _INIT)
    return schema


def _composite_arguments(model: type[Composite]) -> Schema:
    schema = _arguments(
        model, _NAME if model.kind in ("concat", "add", "multiply", "aux") else _LEVEL_NAME
    )
    if model is From:
        del schema["anyOf"][0]["properties"]["name"], schema["anyOf"][0]["properties"]["from"]
    if model is Repeat:
        named = schema["anyOf"][0]
        named["properties"]["times"]["anyOf"].remove({"type": "null"})
        others = {"not": _has("over", "as")}
        over = {"required": ["over", "as"], "not": _has("times")}
        named["anyOf"] = [{"required": ["times"], **others}, over]
    if model.kind == "aux":
        schema["anyOf"][0]["required"].append("name")
        schema["anyOf"][0]["properties"]["name"] = {**_NAME, "not": {"const": "logits"}}
        del schema["anyOf"][1:]
    if model is Parallel:
        named = schema["anyOf"][0]
        options = {key: item for key, item in named["properties"].items() if key != "branches"}
        in_place = {
            "type": "object",
            "description": "The branches themselves, by name.",
            "properties": {**options, "branches": False},
            "additionalProperties": _BODY,
            "minProperties": 1,
        }
        schema["anyOf"].append(in_place)
    return schema


def _arguments(model: type[Op] | type[Composite], name: Schema) -> Schema:
    """What may follow `kind:`: a mapping, the main argument alone, or nothing."""
    own = _model(model)
    properties = {key: _or_expression(item) for key, item in own.get("properties", {}).items()}
    needed = required(model)
    mapping: Schema = {
        "type": "object",
        "properties": {**properties, "name": name, "from": _FROM},
        "required": needed,
        "additionalProperties": False,
    }
    if issubclass(model, Op):
        mapping["properties"][PASS_PARAMS] = _PASS_PARAMS
        if needed:
            del mapping["required"]
            mapping["anyOf"] = [{"required": needed}, {"required": [PASS_PARAMS]}]
    forms: list[Schema] = [mapping]
    main = main_key(model)
    if main is not None and set(needed) <= {main}:
        bare = {key: value for key, value in properties[main].items() if key != "default"}
        mappings_are_arguments = {"not": {"type": "object"}} if issubclass(model, Composite) else {}
        forms.append({**mappings_are_arguments, **bare})
    if not needed:
        forms.append({"type": "null"})
    schema: Schema = {"anyOf": forms}
    return {"description": own["description"], **schema} if "description" in own else schema


def _definition(kind: str) -> str:
    """The name of the definition of a kind's arguments, which no other definition has."""
    return f"arguments of {kind}".replace(" ", "_")


def _accepts_none(arguments: Schema) -> bool:
    return {"type": "null"} in arguments["anyOf"]


class _Generator(GenerateJsonSchema):
    """Accepts references to the definitions that `json_schema` adds.

    A schema given by `WithJsonSchema` is copied for each use: before version 2.11, pydantic writes
    the default of one field into it for all others of the same type.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in _REFERRED:
            known, _ = self.get_cache_defs_ref_schema(CoreRef(name))
            self.json_to_defs_refs[JsonRef(f"#/$defs/{name}")] = known
            self.definitions[known] = {}

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        return dict(super().generate_inner(schema))


_REFERRED = ("body", "BlockDefinition", "schemes")


def _model(model: type[BaseModel]) -> Schema:
    schema = _tidy(model.model_json_schema(schema_generator=_Generator))
    own = {key: item for key, item in schema.pop("$defs", {}).items() if key not in _REFERRED}
    return {**schema, "$defs": own} if own else schema


def _tidy(schema: Any, named: bool = False) -> Any:
    """Removes pydantic's titles and null defaults, and simplifies defaults and descriptions.

    `named` says that the keys are names of the user, not keywords of JSON Schema.
    """
    if isinstance(schema, list | tuple):
        return [_tidy(item) for item in cast(Sequence[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    entries = cast(Schema, schema)
    if named:
        return {key: _tidy(item) for key, item in entries.items()}
    tidied: Schema = {}
    for key, value in entries.items():
        if key == "title" or (key == "default" and value is None):
            continue  # in the models null stands for a missing argument
        if key == "description":
            value = " ".join(value.split())
        if key == "default" and isinstance(value, list | tuple):
            pair = cast(Sequence[Any], value)
            value = pair[0] if len(pair) == 2 and pair[0] == pair[1] else pair
        tidied[key] = _tidy(value, named=key in ("properties", "$defs"))
    return tidied


def _or_expression(schema: Schema) -> Schema:
    """The same schema, with expressions allowed for every value in it."""
    if "$ref" in schema and len(schema) == 1:
        return schema
    notes = {key: schema[key] for key in ("description", "default") if key in schema}
    kinds = schema.get("anyOf", [schema])
    forms: list[Schema] = []
    for kind in kinds:
        form = {key: item for key, item in kind.items() if key not in notes}
        if "items" in form:
            form["items"] = _or_expression(form["items"])
        if isinstance(form.get("additionalProperties"), dict):
            form["additionalProperties"] = _or_expression(form["additionalProperties"])
        if "properties" in form:
            form["properties"] = {
                key: _or_expression(item) for key, item in form["properties"].items()
            }
        forms.append(form)
    if {"type": "string"} not in forms:
        forms.append(_EXPRESSION)
    return {**notes, "anyOf": forms}
