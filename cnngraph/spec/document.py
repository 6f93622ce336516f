"""The language: pydantic models of a spec file and of each composite node.

Fields of type `Raw` are kept as written, with their positions: they hold nodes, or expressions that only the walk can
evaluate. Everything else is checked here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from cnngraph.ops.fields import Count, Number


class _RawMarker:
    """Marks a field that is handed on unevaluated, as a `Located` value."""


RAW = _RawMarker()


BODY_SCHEMA = {"$ref": "#/$defs/body"}
_BRANCHES_SCHEMA = {
    "anyOf": [
        {"type": "array", "items": BODY_SCHEMA, "minItems": 1},
        {"type": "object", "additionalProperties": BODY_SCHEMA, "minProperties": 1},
    ]
}
_BLOCKS_SCHEMA = {"type": "object", "additionalProperties": {"$ref": "#/$defs/BlockDefinition"}}

Body = Annotated[Any, RAW, WithJsonSchema(BODY_SCHEMA)]
Branches = Annotated[Any, RAW, WithJsonSchema(_BRANCHES_SCHEMA)]
Shortcut = Annotated[
    Any, RAW, WithJsonSchema({"anyOf": [{"enum": ["identity", "project"]}, BODY_SCHEMA]})
]
Items = Annotated[Any, RAW, WithJsonSchema({"type": "array"})]
Parameters = Annotated[Any, RAW, WithJsonSchema({"type": "object"})]
Blocks = Annotated[Any, RAW, WithJsonSchema(_BLOCKS_SCHEMA)]
Shape = Annotated[Any, RAW, WithJsonSchema({"type": "array", "minItems": 1, "maxItems": 3})]


def _identifier(value: Any) -> str:
    if not (isinstance(value, str) and value.isidentifier()):
        raise ValueError("must be a plain name, such as `i`")
    return value


def _identifiers(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, tuple) else (value,)
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise ValueError("must be a plain name, such as `width`, or a list of them")
    return names


def _names(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, tuple) else (value,)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("must be the name of an earlier node, or a list of names")
    return names


_NAME_SCHEMA = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}


def _one_or_more(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


Identifier = Annotated[str, PlainValidator(_identifier), WithJsonSchema(_NAME_SCHEMA)]
Identifiers = Annotated[
    tuple[str, ...], PlainValidator(_identifiers), WithJsonSchema(_one_or_more(_NAME_SCHEMA))
]
ValueNames = Annotated[
    tuple[str, ...], PlainValidator(_names), WithJsonSchema(_one_or_more({"type": "string"}))
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Composite(_Model):
    """A node made of other nodes. Every composite also takes `name`."""

    kind: ClassVar[str]
    main: ClassVar[str | None] = "body"


class Sequential(Composite):
    """Nodes one after another, as a level of their own in the names."""

    kind = "sequential"

    body: Body


class Parallel(Composite):
    """Branches that see the same input, joined by `merge`. Without options the branches may stand directly in it."""

    kind = "parallel"
    main = "branches"

    branches: Branches
    merge: Literal["concat", "add", "multiply"] = "concat"


class Residual(Composite):
    """`scale * body(x) + shortcut(x)`. The shortcut is the identity, `project`, or nodes of its own."""

    kind = "residual"

    body: Body
    shortcut: Shortcut = None
    scale: Number = 1.0


class Dense(Composite):
    """`x <- concat(x, body(x))`, `layers` times; `index` names the counter, from 0."""

    kind = "dense"
    main = None

    layers: Count
    body: Body
    index: Identifier = "i"


class Repeat(Composite):
    """The body, `times` times or once for each item `over` a list. `index` names the counter, `as` the item (or its parts)."""

    kind = "repeat"
    main = None

    times: Annotated[int, Field(ge=0)] | None = None
    over: Items = None
    item: Identifiers | None = Field(default=None, alias="as")
    index: Identifier = "i"
    body: Body


class When(Composite):
    """The body where `test` is true, and nothing where it is false."""

    kind = "when"
    main = None

    test: bool
    body: Body


class Aux(Composite):
    """A side head: the main value passes through; in training the network also returns the head's result, by its name.

    It reads the value at its place, or an earlier one that `from` names.
    """

    kind = "aux"

    origin: str | None = Field(default=None, alias="from")
    body: Body


class JoinWith(Composite):
    main = "values"

    values: ValueNames = Field(alias="with")


class ConcatWith(JoinWith):
    """Concatenates the current value and earlier named values, on channels."""

    kind = "concat"


class AddWith(JoinWith):
    """Adds earlier named values to the current one."""

    kind = "add"


class MultiplyWith(JoinWith):
    """Multiplies the current value by earlier named values."""

    kind = "multiply"


COMPOSITES: dict[str, type[Composite]] = {
    model.kind: model
    for model in (
        Sequential, Parallel, Residual, Dense, Repeat, When, Aux, ConcatWith, AddWith, MultiplyWith,
    )
}  # fmt: skip


class BlockDefinition(_Model):
    """A block: a function from parameters to nodes. Children in `order` come first in the `state_dict`, in that order."""

    params: Parameters = None
    order: tuple[str, ...] = ()
    body: Body


class ExpectedNode(_Model):
    """What a named node or composite costs."""

    params: int | None = None
    macs: int | None = None


class Expect(_Model):
    """What the author knows to be true of the network at its declared input and default parameters."""

    params: int | None = None
    buffers: int | None = None
    macs: int | None = None
    shapes: dict[str, tuple[int, ...]] = {}
    nodes: dict[str, ExpectedNode] = {}


class Document(_Model):
    """One network, or with `blocks` alone a library of blocks."""

    cnngraph: Literal[1]
    name: str | None = None
    paper: str | None = None
    year: int | None = None
    source: str | None = None
    extends: str | None = None
    imports: tuple[str, ...] = ()
    input: Shape = None
    params: Parameters = None
    blocks: Blocks = None
    graph: Body = None
    expect: Expect | None = None


@lru_cache(maxsize=1024)
def written_fields(model: type[BaseModel]) -> dict[str, bool]:
    """The model's keys as users write them -> whether the field is raw."""
    return {
        field.alias or name: any(item is RAW for item in field.metadata)
        for name, field in model.model_fields.items()
    }


def argument_names(model: type[BaseModel]) -> list[str]:
    """What the model's fields are called in a spec."""
    return [*written_fields(model)]
