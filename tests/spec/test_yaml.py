"""YAML with positions: the core schema, and what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cnngraph.errors import Source, SpecError
from cnngraph.spec.yaml import MAX_DEPTH, Located, parse_yaml, read_source


def parse(text: str) -> Located:
    return parse_yaml(Source("test.yaml", text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("6_624_904", 6_624_904),
        ("0x10", 16),
        ("010", 10),
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("'3'", "3"),
        ("~", None),
        ("[1, [2, a]]", (1, (2, "a"))),
        ("{a: 1, b: {c: ~}}", {"a": 1, "b": {"c": None}}),
        ("{a: &x [1], b: *x}", {"a": (1,), "b": (1,)}),
        ("1: 2", {"1": 2}),
    ],
)
def test_values(text: str, value: object) -> None:
    result = parse(text).plain()
    assert result == value
    assert type(result) is type(value)


def test_positions_count_from_one_and_cover_the_text() -> None:
    document = parse("a: 1\nlonger:\n  - x\n  - {k: value}\n")
    value = document.value["longer"].value[1].value["k"]
    assert (value.position.line, value.position.column, value.position.width) == (4, 9, 5)
    assert document.at(("longer", 1, "k")) == value.position
    key = document.keys["longer"]
    assert (key.line, key.column, key.width) == (2, 1, 6)


def test_a_location_that_leads_nowhere_gives_the_nearest_position() -> None:
    document = parse("a: [1]")
    assert document.at(("a", 5)) == document.value["a"].position
    assert document.at(("b",)) == document.position


def test_every_duplicate_key_is_reported() -> None:
    with pytest.raises(SpecError) as caught:
        parse("a: 1\na: 2\nb: {c: 1, c: 2}")
    assert [d.position.line for d in caught.value.diagnostics if d.position] == [2, 3]


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, problem in [
        (tmp_path / "pipe.yaml", "it is not a regular file"),
        (Path("/dev/null"), "it is not a regular file"),
        (tmp_path / "none.yaml", "it does not exist"),
        (tmp_path, "it is a folder, not a file"),
    ]:
        with pytest.raises(SpecError, match=problem):
            read_source(path, "spec.yaml")


def test_depth_is_limited_without_recursion() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(SpecError, match="nested more than"):
        parse("[" * 100_000)


_PRINTABLE = st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=("C", "Z"))


_NUMBER = re.compile(r"[-+]?[\d_.]+([eE][-+]?\d+)?|[-+]?0[xo]\w+")


def _texts(**sizes: int) -> st.SearchStrategy[str]:
    """But for those that are numbers here, as `1e5` is, and not in PyYAML, which writes them
    without quotes."""
    return st.text(_PRINTABLE, **sizes).filter(
        lambda text: not _NUMBER.fullmatch(text) or yaml.safe_dump(text)[0] == "'"
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**9), 10**9) | _texts(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts(min_size=1, max_size=5), inner, max_size=4),
        max_leaves=20,
    )
)  # fmt: skip
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    assert parse(yaml.safe_dump(value, allow_unicode=True)).plain() == _tuples(value)


def _tuples(value: object) -> object:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
