"""Diagnostics for programs that show them beside the code: GitHub's annotations, and SARIF."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from cnngraph import __version__
from cnngraph.errors import CODES, Diagnostic

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def github_annotation(item: Diagnostic) -> str:
    """A diagnostic as a workflow command of GitHub Actions, which shows it at its line.

    `::error file=net.yaml,line=4,col=5,endColumn=9,title=E104 unknown-op::there is no op ...`
    """
    where = item.position
    properties = {"title": f"{item.code} {CODES[item.code]}"}
    if where:
        properties = {
            "file": where.source.name,
            "line": str(where.line),
            "col": str(where.column),
            "endColumn": str(where.column + where.width),
            **properties,
        }
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{item.severity} {listed}::{_data(_text(item))}"


def _text(item: Diagnostic) -> str:
    return "\n".join([item.message, *(f"{kind}: {text}" for kind, text in item.notes)])


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def sarif(diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """A log of SARIF 2.1.0, which code scanning of GitHub and many editors read."""
    found = list(diagnostics)
    codes = sorted({item.code for item in found})
    return {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "cnngraph",
                        "version": __version__,
                        "rules": [{"id": code, "name": CODES[code]} for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(item) for item in found],
            }
        ],
    }


def _result(item: Diagnostic) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": item.code,
        "level": item.severity,
        "message": {"text": _text(item)},
    }
    if item.position:
        where = item.position
        region = {
            "startLine": where.line,
            "startColumn": where.column,
            "endColumn": where.column + where.width,
        }
        uri = PurePath(where.source.name).as_posix()
        location = {"artifactLocation": {"uri": uri}, "region": region}
        result["locations"] = [{"physicalLocation": location}]
    return result
