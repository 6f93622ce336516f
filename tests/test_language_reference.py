"""docs/language.md agrees with the code: its tables, keys and limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import pytest
from annotated_types import Ge
from conftest import ROOT
from pydantic import TypeAdapter

import cnngraph
from cnngraph.elaborate import builder, params, paths, place, walk
from cnngraph.errors import CODES
from cnngraph.ops import OPS
from cnngraph.ops.fields import (
    Count,
    Fraction,
    Number,
    OutputSize,
    PaddingPair,
    Pair,
    PositiveNumber,
    ScalePair,
    Sides,
)
from cnngraph.spec import document, expressions
from cnngraph.spec import yaml as yaml_source
from cnngraph.spec.document import COMPOSITES, BlockDefinition, Document, Expect
from cnngraph.spec.expressions import CONSTANTS, FUNCTIONS, RESERVED
from cnngraph.spec.json_schema import fields, main_key, required
from cnngraph.spec.yaml import parse_yaml

PAGE = (ROOT / "docs" / "language.md").read_text()
BUILT_IN = {
    kind: op
    for kind, op in OPS.items()
    if op.__module__.startswith("cnngraph.") and kind[-2:] not in ("1d", "3d")
}
OTHER_RANKS = [kind for kind in OPS if kind[-2:] in ("1d", "3d")]

TYPES = {
    "bool": bool,
    "count": Count,
    "whole number": Annotated[int, Ge(0)],
    "pair": Pair,
    "padding": PaddingPair,
    "size": OutputSize,
    "sides": Sides,
    "number": Number,
    "positive": PositiveNumber,
    "factor": ScalePair,
    "fraction": Fraction,
    "class": str,
    "arguments": dict[str, Any],
    "integer": int,
    "name": str,
    "list of count": tuple[Count, ...],
    "list of whole number": tuple[Annotated[int, Ge(0)], ...],
    "list of number": tuple[Number, ...],
    "list of positive": tuple[PositiveNumber, ...],
    "`~`": None,
}
"""The name of a type on the page -> the type."""


class Row(NamedTuple):
    """A row of a table: an argument of an op or a composite, or a key of a mapping.

    Attributes:
        owner: the op or composite, or the section of the mapping.
        main: whether the argument may be given without its name.
    """

    owner: str
    name: str
    main: bool
    type: str
    default: str


def tables() -> Iterator[tuple[str, list[list[str]]]]:
    """The heading above each table of the page, and its rows, header first."""
    heading, table = "", []
    for line in [*PAGE.splitlines(), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if table:
            yield heading, [row for row in table if not re.fullmatch(r"-+", row[0])]
            table = []
        if line.startswith("#"):
            heading = line.lstrip("# ")


def table(*header: str) -> list[list[str]]:
    """The rows of the only table whose header begins with these cells."""
    (found,) = [rows[1:] for _, rows in tables() if tuple(rows[0][: len(header)]) == header]
    return found


def arguments(first: str) -> list[Row]:
    """The rows of all tables whose first column is `first`. An empty cell repeats the one above."""
    rows, owner = [], ""
    for _, (header, *body) in tables():
        if header[0] == first:
            for cell, name, kind, default, *_ in body:
                owner = word(cell) or owner
                rows.append(Row(owner, word(name), "**" in name, kind, default))
    return rows


def keys(section: str) -> list[Row]:
    """The rows of a section's table of keys."""
    (rows,) = [rows[1:] for heading, rows in tables() if heading == section and rows[0][0] == "key"]
    return [Row(section, word(name), False, kind, default) for name, kind, default, _ in rows]


def word(cell: str) -> str:
    return cell.strip("*`")


def stated(words: str) -> set[str] | None:
    """The alternatives of a type's cell, as in `allowed`; None if it has no schema (nodes,
    text)."""
    parts = [words] if words in TYPES else re.split(r", | or ", words)
    if not all(part in TYPES or part.startswith("`") for part in parts):
        return None
    schemas = [
        TypeAdapter(TYPES[part]).json_schema() if part in TYPES else {"const": word(part)}
        for part in parts
    ]
    return set().union(*map(allowed, schemas))


def allowed(schema: dict[str, Any]) -> set[str]:
    """The alternatives of a JSON Schema as texts."""
    if "anyOf" in schema:
        return set().union(*map(allowed, schema["anyOf"]))
    if "enum" in schema:
        return set(map(str, schema["enum"]))
    if "const" in schema:
        return {str(schema["const"])}
    rest = {
        key: item for key, item in schema.items() if key not in ("title", "default", "description")
    }
    return {json.dumps(rest, sort_keys=True)}


def value(cell: str) -> Any:
    """The value of a default's cell, parsed as in a spec."""
    assert re.fullmatch(r"`.+`", cell), f"{cell} is not a default in backticks"
    found = parse_yaml(cnngraph.errors.Source("cell", word(cell))).plain()
    return list(found) if isinstance(found, tuple) else found


def same(left: Any, right: Any) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


@pytest.mark.parametrize(
    ("first", "models"), [("op", BUILT_IN), ("composite", COMPOSITES)], ids=["ops", "composites"]
)
def test_every_argument_is_in_its_table(first: str, models: dict) -> None:
    rows = arguments(first)
    assert sorted({row.owner for row in rows}) == sorted(models)
    for kind, model in models.items():
        own = [row for row in rows if row.owner == kind and row.name]
        check_rows(own, model)
        main = [row.name for row in own if row.main]
        assert main == [main_key(model)] * (main_key(model) is not None), kind


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("Keys of a document", Document),
        ("Expected figures: expect", Expect),
        ("Blocks", BlockDefinition),
    ],
)
def test_every_key_is_in_its_table(section: str, model: type) -> None:
    rows = keys(section)
    rows = [row._replace(type="in words") for row in rows]
    check_rows(rows, model)


def check_rows(rows: list[Row], model: type) -> None:
    expected = fields(model)
    assert [row.name for row in rows] == list(expected), model
    for row in rows:
        schema = expected[row.name]
        if row.name in required(model):
            assert row.default == "required", row
        else:
            assert same(value(row.default), schema.get("default")), row
        types = stated(row.type)
        assert types is not None or model not in BUILT_IN.values(), row
        assert types in (None, allowed(schema)), row


@pytest.mark.parametrize("kind", OTHER_RANKS)
def test_ops_of_other_ranks_are_listed_and_take_the_same_arguments(kind: str) -> None:
    flat = f"{kind[:-2]}2d"
    rows = {
        word(first): [word(cell) for cell in rest]
        for first, *rest in table("for maps", "for signals")
    }
    assert kind in rows[flat]
    without = {"divisor_override"} if kind == "avg_pool1d" else set()
    assert list(OPS[kind].model_fields) == [
        name for name in OPS[flat].model_fields if name not in without
    ]
    assert OPS[kind].main == OPS[flat].main


def test_every_type_is_explained() -> None:
    explained = {row[0] for row in table("type", "takes")}
    assert {row.type for row in arguments("op") if row.type in TYPES} - explained <= {
        "arguments",
        "class",
        "integer",
        "list of count",
        "list of number",
        "list of positive",
        "list of whole number",
    }


def test_every_function_constant_and_reserved_name_is_documented() -> None:
    assert [word(row[0]) for row in table("function", "returns")] == list(FUNCTIONS)
    for name in [*CONSTANTS, *RESERVED]:
        assert f"`{name}`" in PAGE


def test_every_diagnostic_is_documented() -> None:
    assert {word(code): name for code, name, _ in table("code", "name")} == CODES


def test_limits_match_the_code() -> None:
    limits = [int(word(number).replace("_", "")) for _, number in table("quantity", "limit")]
    assert limits == [
        yaml_source.MAX_BYTES,
        yaml_source.MAX_DEPTH,
        yaml_source.MAX_VALUES,
        yaml_source._MAX_DIGITS,
        place.MAX_NODES,
        walk.MAX_NESTING,
        paths.MAX_PATH,
        document.MAX_TEXT,
        params.MAX_PARAMS,
        params.MAX_SIZE,
        builder.MAX_ELEMENTS,
        expressions.MAX_LENGTH,
        expressions.MAX_STEPS,
        expressions.MAX_DEPTH,
        expressions.MAX_MAGNITUDE,
        64,
        expressions.MAX_DIGITS,
        expressions.MAX_ITEMS,
    ]
    expressions.evaluate("${1 ** 64}", {})
    with pytest.raises(expressions.ExpressionError):
        expressions.evaluate("${1 ** 65}", {})


FENCE = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = FENCE.findall(PAGE)
KEYS = [
    (spec, listing)
    for (_, language, spec), (note, _, listing) in pairwise(BLOCKS)
    if note == "state_dict" and language == "yaml"
]


def test_every_listing_of_keys_follows_a_spec() -> None:
    assert len(KEYS) == PAGE.count("<!-- state_dict -->") >= 7


@pytest.mark.parametrize(("spec", "listing"), KEYS, ids=lambda text: text.splitlines()[0][:30])
def test_keys_are_those_of_the_network(spec: str, listing: str) -> None:
    head = "cnngraph: 1\nname: example\ninput: [16, 32, 32]\n"
    network = cnngraph.compile(head + ("graph:\n" if spec.startswith("- ") else "") + spec)
    assert list(network.state_dict()) == listing.splitlines()
