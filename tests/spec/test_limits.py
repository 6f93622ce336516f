"""However a spec is written, `check` answers soon, in little memory, and with few diagnostics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cnngraph
from cnngraph.errors import MAX_MISTAKES
from cnngraph.spec.loader import MAX_FILES, load_spec
from cnngraph.spec.yaml import read_source

HEAD = "cnngraph: 1\nname: net\ninput: [3, 8, 8]\n"
LIBRARY = "cnngraph: 1\nblocks:\n"


def check(folder: Path, text: str, **others: str) -> cnngraph.Report:
    for name, other in others.items():
        (folder / f"{name}.yaml").write_text(other)
    path = folder / "net.yaml"
    path.write_text(text)
    return cnngraph.check(path)


def codes(report: cnngraph.Report) -> set[str]:
    return {diagnostic.code for diagnostic in report.diagnostics}


def imports(names: list[str]) -> str:
    return f"{HEAD}imports: [{', '.join(names)}]\ngraph: [relu]\n"


MANY = 20_000


@pytest.mark.parametrize(
    "text",
    [
        imports([f"m{i}.yaml" for i in range(MANY)]),
        HEAD + "x: 1\n" * MANY + "graph: [relu]\n",
        HEAD + "<<: 1\n" * MANY + "graph: [relu]\n",
        HEAD + "".join(f"x{i}: 1\n" for i in range(MANY)) + "graph: [relu]\n",
        HEAD + f"graph: [{'rellu, ' * MANY}]\n",
        HEAD + f"graph: [{'!tag relu, ' * MANY}]\n",
        HEAD + f"blocks: {{{', '.join(f'b{i}: 3' for i in range(MANY))}}}\ngraph: [relu]\n",
    ],
    ids=["imports", "keys", "merge", "unknown", "kinds", "tags", "blocks"],
)
def test_mistakes_are_limited(text: str, tmp_path: Path) -> None:
    report = check(tmp_path, text)
    assert 0 < len(report.diagnostics) <= MAX_MISTAKES + 1
    assert len(str(report)) < 100_000


def test_a_broken_import_is_read_and_reported_once(tmp_path: Path) -> None:
    names = ["lib.yaml", "./lib.yaml", *[f"./{'./' * i}lib.yaml" for i in range(50)]]
    (tmp_path / "lib.yaml").write_text("cnngraph: 1\nblocks: {a: {}, a: {}}\n")
    (tmp_path / "net.yaml").write_text(imports(names))
    read: list[Path] = []

    def reader(path: Path, name: str):
        read.append(path)
        return read_source(path, name)

    spec = load_spec(tmp_path / "net.yaml", read=reader)
    assert [path.name for path in read] == ["net.yaml", "lib.yaml"]
    assert len(spec.mistakes) == 1


@pytest.mark.parametrize("key", ["imports: [m{}.yaml]", "extends: m{}.yaml"])
def test_chains_of_files_are_limited(key: str, tmp_path: Path) -> None:
    for i in range(MAX_FILES + 50):
        (tmp_path / f"m{i}.yaml").write_text(f"cnngraph: 1\n{key.format(i + 1)}\n")
    head = HEAD if "imports" in key else "cnngraph: 1\n"
    report = check(tmp_path, f"{head}{key.format(0)}\n")
    assert "E110" in codes(report)


def test_the_files_of_a_spec_are_limited_together(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"m{i}.yaml").write_text(f"{LIBRARY}  b{i}: {{body: relu}}\n#{'x' * 500_000}\n")
    assert codes(check(tmp_path, imports([f"m{i}.yaml" for i in range(3)]))) == {"E004"}


@pytest.mark.parametrize("name", ['"a\\0b.yaml"', '"a\\ud800b.yaml"', "a" * 300_000 + ".yaml"])
@pytest.mark.parametrize("key", ["imports: [{}]\ngraph: [relu]", "extends: {}"])
def test_names_that_no_file_can_have_are_diagnostics(name: str, key: str, tmp_path: Path) -> None:
    head = HEAD if "imports" in key else "cnngraph: 1\n"
    report = check(tmp_path, f"{head}{key.format(name)}\n")
    assert codes(report) & {"E002", "E111", "E112"}
    assert len(str(report)) < 10_000


@pytest.mark.parametrize(
    "name", ["a\0b.yaml", "a\ud800.yaml", "a" * 10_000, "a" * 10_000 + ".yaml"]
)
def test_a_path_that_no_file_can_have_is_a_diagnostic(name: str) -> None:
    assert codes(cnngraph.check(name)) == {"E001"}


@pytest.mark.parametrize(
    "expression",
    ["[1] * none", "none * [1]", "'a' * none", "none + 1", "max(none)", "none[0]", "len(none)",
     "sum(none)", "range(none)", "round(none)", "divisible(none, 8)", "none < 1", "1 in none"],
)  # fmt: skip
def test_expressions_over_none_are_diagnostics(expression: str, tmp_path: Path) -> None:
    value = json.dumps(f"${{{expression}}}")
    report = check(tmp_path, f"{HEAD}params: {{a: {value}}}\ngraph: [relu]\n")
    assert codes(report) == {"E105"}


@pytest.mark.parametrize("name", ["a/" * 100_000 + "b.yaml", "a" * 100_000 + ".yaml"])
def test_a_path_has_a_limited_length(name: str, tmp_path: Path) -> None:
    for text, code in [(imports([name]), "E111"), (f"cnngraph: 1\nextends: {name}\n", "E112")]:
        report = check(tmp_path, text)
        assert codes(report) == {code}
        assert "at most 4,096 characters" in str(report)
        assert len(str(report)) < 1000


def test_the_report_of_a_large_network_is_limited() -> None:
    heads = "".join(f"  - aux: {{name: h{i}, body: [relu]}}\n" for i in range(200))
    report = cnngraph.check(f"{HEAD}graph:\n{heads}" + "  - relu\n" * 2001)
    text = str(report)
    assert report.ok
    assert "and 150 more)" in text
    assert "1,701 more" in text
    assert len(text.splitlines()) < 600
