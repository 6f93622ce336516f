"""The language: pydantic models of a spec file and of each composite node.

Fields marked `RAW` are kept as written, with positions: they contain nodes, or expressions that
only the walk can evaluate. All other fields are validated here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from cnngraph.errors import is_list
from cnngraph.ops import Op
from cnngraph.ops.fields import Count, Number
from cnngraph.spec.expressions import RESERVED
from cnngraph.spec.initial import rules, rules_schema


class _RawMarker:
    """Marks a field that is passed on unevaluated, as a `Located` value."""


RAW = _RawMarker()


BODY_SCHEMA = {"$ref": "#/$defs/body"}
_BRANCHES_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": BODY_SCHEMA, "minItems": 1},
        {"type": "object", "additionalProperties": BODY_SCHEMA, "minProperties": 1},
    ]
}
MAX_TEXT = 500
"""The most characters of a network's name, of a block's name, and of a reference."""
MAX_PATH = 4096
"""The most characters in the path of an import, as in Linux."""

IDENTIFIER = r"^[^\x00-@\[-^`{-\x7f][^\x00-/:-@\[-^`{-\x7f]*$"
"""A pattern of names: letters of any alphabet, digits and `_`."""
_IDENTIFIER = {"pattern": IDENTIFIER}
_VARIABLE = {**_IDENTIFIER, "not": {"enum": sorted(RESERVED)}}
_BLOCKS_SCHEMA = {
    "type": ["object", "null"],
    "propertyNames": {**_IDENTIFIER, "maxLength": MAX_TEXT},
    "additionalProperties": {"$ref": "#/$defs/BlockDefinition"},
}

Body = Annotated[Any, RAW, WithJsonSchema(BODY_SCHEMA)]
Branches = Annotated[Any, RAW, WithJsonSchema(_BRANCHES_SCHEMA)]
Shortcut = Annotated[
    Any, RAW, WithJsonSchema({"anyOf": [{"enum": ["identity", "project", None]}, BODY_SCHEMA]})
]
Items = Annotated[Any, RAW, WithJsonSchema({"type": "array"})]
_PARAMS_SCHEMA = {"type": ["object", "null"], "propertyNames": _VARIABLE}
Parameters = Annotated[
    Any,
    RAW,
    WithJsonSchema({**_PARAMS_SCHEMA, "additionalProperties": {"not": {"type": "object"}}}),
]
BlockParameters = Annotated[
    Any,
    RAW,
    WithJsonSchema(
        {
            **_PARAMS_SCHEMA,
            "propertyNames": {
                **_IDENTIFIER,
                "not": {"enum": [*sorted(RESERVED), "name", "from", "pass_params"]},
            },
        }
    ),
]
Blocks = Annotated[Any, RAW, WithJsonSchema(_BLOCKS_SCHEMA)]
_SHAPE_SCHEMA = {"type": "array", "minItems": 1, "maxItems": 4}
_NAMES_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
    ]
}
Shape = Annotated[Any, RAW, WithJsonSchema(_SHAPE_SCHEMA)]
Inputs = Annotated[
    Any,
    RAW,
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {
                "pattern": "^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$",
                "maxLength": MAX_TEXT,
            },
            "additionalProperties": _SHAPE_SCHEMA,
            "minProperties": 1,
        }
    ),
]
Outputs = Annotated[Any, RAW, WithJsonSchema(_NAMES_SCHEMA)]


def _identifier(value: Any) -> str:
    if not (isinstance(value, str) and value.isidentifier()):
        raise ValueError("must be a plain name, such as `i`")
    return value


def _identifiers(value: Any) -> tuple[str, ...]:
    names: tuple[Any, ...] = value if is_list(value) else (value,)
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise ValueError("must be a plain name, such as `width`, or a list of them")
    return names


_NAME_SCHEMA = {"type": "string", **_VARIABLE}


def _one_or_more(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


Identifier = Annotated[str, PlainValidator(_identifier), WithJsonSchema(_NAME_SCHEMA)]
Identifiers = Annotated[
    tuple[str, ...], PlainValidator(_identifiers), WithJsonSchema(_one_or_more(_NAME_SCHEMA))
]
ValueName = Annotated[Any, RAW, WithJsonSchema({"type": "string"})]
ValueNames = Annotated[Any, RAW, WithJsonSchema(_one_or_more({"type": "string"}))]

Text = Annotated[str, Field(max_length=MAX_TEXT)]

PASS_PARAMS = "pass_params"
"""The argument of ops and blocks that passes on the params of the enclosing block."""

CURRENT = "."
"""The name of the current value."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Composite(_Model):
    """A node made of other nodes. Like every node, it also accepts `name` and `from`.

    Attributes:
        kind: its name in specs.
        main: the field that may be given without its name.
    """

    kind: ClassVar[str]
    main: ClassVar[str | None] = "body"


class Sequential(Composite):
    """Nodes one after another, in their own level of names."""

    kind = "sequential"

    body: Body


class Parallel(Composite):
    """Branches with the same input, joined by `merge`; `branches:` itself may be left out."""

    kind = "parallel"
    main = "branches"

    branches: Branches
    merge: Literal["concat", "add", "multiply"] = "concat"


class Residual(Composite):
    """`scale * body(x) + shortcut(x)`; the shortcut is `identity`, `project`, or other nodes."""

    kind = "residual"

    body: Body
    shortcut: Shortcut = None
    scale: Number = 1.0


class Dense(Composite):
    """`x = concat(x, body(x))`, `layers` times; `index` names the counter, from 0."""

    kind = "dense"
    main = None

    layers: Count
    body: Body
    index: Identifier = "i"


class Repeat(Composite):
    """The body, `times` times or for each item of the list `over`.

    `index` names the counter, from 0, and `as` the item or its parts.
    """

    kind = "repeat"
    main = None

    times: Annotated[int, Field(ge=0)] | None = None
    over: Items = None
    item: Identifiers | None = Field(default=None, alias="as")
    index: Identifier = "i"
    body: Body


class When(Composite):
    """The body if `test` is true, otherwise nothing."""

    kind = "when"
    main = None

    test: bool
    body: Body


class Aux(Composite):
    """A side head, whose result the network also returns in training, by its name.

    The current value passes by unchanged.
    """

    kind = "aux"

    body: Body


class From(Composite):
    """Goes back to an earlier value, which the next node reads."""

    kind = "from"
    main = "value"

    value: ValueName


class Share(Composite):
    """Calls an earlier node, composite or block again, with the same weights."""

    kind = "share"
    main = "of"

    of: ValueName


class JoinWith(Composite):
    """Joins the current value with earlier ones, in the order written.

    `.` is the current value. If it is not written, it comes first.
    """

    main = "values"

    values: ValueNames = Field(alias="with")


class ConcatWith(JoinWith):
    """Concatenates the named values along channels: `.` is the current one, first by default."""

    kind = "concat"


class AddWith(JoinWith):
    """Adds the named earlier values to the current one."""

    kind = "add"


class MultiplyWith(JoinWith):
    """Multiplies the current value by the named earlier ones."""

    kind = "multiply"


COMPOSITES: dict[str, type[Composite]] = {
    model.kind: model
    for model in (
        Sequential, Parallel, Residual, Dense, Repeat, When, Aux, From, Share, ConcatWith, AddWith,
        MultiplyWith,
    )
}  # fmt: skip


class BlockDefinition(_Model):
    """A function from params to nodes. The children in `order` come first in the `state_dict`."""

    params: BlockParameters = None
    order: tuple[str, ...] = ()
    body: Body


class ExpectedNode(_Model):
    """The costs of a named node, composite or block."""

    params: int | None = None
    macs: int | None = None


class Expect(_Model):
    """Figures of the network for its declared input and default params, to be checked."""

    params: int | None = None
    buffers: int | None = None
    macs: int | None = None
    shapes: dict[str, tuple[int, ...]] = {}
    nodes: dict[str, ExpectedNode] = {}


Init = Annotated[Any, PlainValidator(rules), WithJsonSchema(rules_schema())]
SpecPath = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": r"^[^/].*\.ya?ml$", "maxLength": MAX_PATH})
]


class Document(_Model):
    """One network, or a library of `blocks`."""

    cnngraph: Literal[1]
    name: Text | None = None
    paper: Text | None = None
    year: int | None = None
    source: Text | None = None
    extends: SpecPath | None = None
    imports: tuple[SpecPath, ...] = ()
    plugins: tuple[str, ...] = ()
    input: Shape = None
    inputs: Inputs = None
    outputs: Outputs = None
    params: Parameters = None
    init: Init | None = None
    blocks: Blocks = None
    graph: Body = None
    expect: Expect | None = None


@lru_cache(maxsize=1024)
def written_fields(model: type[BaseModel]) -> dict[str, bool]:
    """The keys of a model as users write them -> whether the field is marked `RAW`."""
    return {
        field.alias or name: any(item is RAW for item in field.metadata)
        for name, field in model.model_fields.items()
    }


def argument_names(model: type[BaseModel]) -> list[str]:
    """The keys of a model as users write them."""
    return [*written_fields(model)]


def main_key(model: type[Op | Composite]) -> str | None:
    """The argument that may be given without its name, or None."""
    return model.main and (model.model_fields[model.main].alias or model.main)
