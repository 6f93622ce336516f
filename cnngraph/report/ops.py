"""The kinds of nodes: a list of all, and the arguments of each."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from cnngraph.ops import OPS, Op
from cnngraph.ops.fields import MOST
from cnngraph.report.terminal import to_text
from cnngraph.spec.document import COMPOSITES, Composite
from cnngraph.spec.json_schema import Schema, fields, main_key, required

if TYPE_CHECKING:
    from rich.table import Table

_WORDS = {
    "integer": "int",
    "number": "float",
    "string": "text",
    "boolean": "true | false",
    "null": "none",
    "array": "list",
    "object": "mapping",
}
_SHOWN = ("default", "description")
"""The parts of a schema that `kind_data` lists separately."""


def kinds() -> dict[str, type[Op] | type[Composite]]:
    """Every kind of node except a spec's own blocks: ops, then composites. Load plugins first."""
    return {**dict(sorted(OPS.items())), **COMPOSITES}


def kind_data(kind: str) -> dict[str, Any]:
    """One kind as plain data: description and arguments with their JSON Schema and defaults."""
    model = kinds()[kind]
    needed = required(model)
    return {
        "kind": kind,
        "composite": kind in COMPOSITES,
        "summary": _summary(model),
        "description": inspect.cleandoc(model.__doc__ or ""),
        "main": main_key(model),
        "arguments": [
            {
                "name": name,
                "required": name in needed,
                "default": schema.get("default"),
                "type": type_words(schema),
                "schema": {key: schema[key] for key in schema if key not in _SHOWN},
                "description": schema.get("description", ""),
            }
            for name, schema in fields(model).items()
        ],
    }


def list_table() -> Table:
    """All kinds, with the first paragraph of their docstrings."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for kind, model in sorted(OPS.items()):
        table.add_row(kind, _summary(model))
    table.add_row("", "")
    table.add_row("composites:", "")
    for kind, model in COMPOSITES.items():
        table.add_row(kind, _summary(model))
    return table


def kind_text(kind: str) -> str:
    """One kind: its docstring and its arguments."""
    data = kind_data(kind)
    parts = [f"{kind}: {data['description']}" if data["description"] else kind]
    if data["arguments"]:
        parts.append(to_text(_argument_table(data["arguments"])))
    else:
        parts.append("No arguments.")
    if data["main"]:
        parts.append(f"`{kind}: value` is short for `{kind}: {{{data['main']}: value}}`.")
    parts.append("Every node also takes `name`; every value may be an expression, `${...}`.")
    return "\n\n".join(parts)


def _argument_table(arguments: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 1))
    for column in ("argument", "type", "default"):
        table.add_column(column, no_wrap=True)
    for item in arguments:
        default = "required" if item["required"] else _default(item["default"])
        table.add_row(item["name"], item["type"], default)
    return table


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(value)


def type_words(schema: Schema) -> str:
    """A JSON Schema in a few words: `int >= 1 | pair of int >= 1`, without the limit `MOST`."""
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(type_words(item) for item in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "$ref" in schema:
        return "nodes"
    if schema.get("type") == "array":
        return _list_words(schema)
    if schema.get("type") == "object":
        inner: Schema | bool = schema.get("additionalProperties", True)
        return "mapping" if isinstance(inner, bool) else f"mapping of {type_words(inner)} by name"
    limits = {key: schema[key] for key in _BOUNDS if schema.get(key) not in (None, MOST)}
    bounds = [f"{_BOUNDS[key]} {limit}" for key, limit in limits.items()]
    return " ".join([_WORDS.get(str(schema.get("type")), "anything"), " and ".join(bounds)]).strip()


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _list_words(schema: Schema) -> str:
    item = type_words(schema["items"]) if "items" in schema else ""
    length = schema.get("maxItems")
    if item and length is not None and length == schema.get("minItems"):
        return f"pair of {item}" if length == 2 else f"{length} of {item}"
    return f"list of {item}" if item else "list"


def _summary(model: type[Op] | type[Composite]) -> str:
    """The first paragraph of the docstring."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0].split())
