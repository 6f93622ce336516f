"""What the command line accepts besides files, and how wrong usage is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SPECS
from typer.testing import CliRunner, Result

import cnngraph
from cnngraph.cli import app
from cnngraph.errors import CnngraphError

LENET = SPECS / "lenet.yaml"
LIBRARY = "cnngraph: 1\nblocks:\n  act: {params: {kind: relu}, body: ['${kind}']}\n"


def run(*args: str, input: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, args, input=input)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["check"], "SPEC is missing"),
        (["check", "--formt", "json", "x"], "there is no option --formt; did you mean --format?"),
        (
            ["check", "--format", "xml", "x"],
            "--format must be text, json, github or sarif, not `xml`",
        ),
        (["check", "--set"], "--set needs a value"),
        (["check", "--set", "width", "x"], "--set: `width` is not of the form NAME=VALUE"),
        (["chek", "x"], "there is no command `chek`; did you mean `check`?"),
        (["compile", "a", "b"], "`b` is more than the command takes"),
        (["compile", "x", "--batch-size", "many"], "--batch-size must be a whole number"),
        (["compile", "x", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["compile", "x", "--force=3"], "--force takes no value"),
        (["--set", "a=1", "check", "x"], "there is no option --set"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_reported_in_own_words(args: list[str], problem: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: {problem}"


@pytest.mark.parametrize("text", ["8,16", "8, 16", "[8, 16]"])
def test_a_list_can_be_set_without_brackets(text: str, tmp_path: Path) -> None:
    spec = tmp_path / "net.yaml"
    spec.write_text(
        "cnngraph: 1\nname: net\ninput: [3, 8, 8]\nparams: {widths: [4]}\n"
        'graph: [conv2d: {out_channels: "${widths[1]}", kernel_size: 3}]\n'
    )
    assert "-> 16x6x6" in run("check", str(spec), "--set", f"widths={text}").stdout


def test_text_in_quotes_may_contain_a_comma(tmp_path: Path) -> None:
    spec = tmp_path / "net.yaml"
    spec.write_text("cnngraph: 1\nname: net\ninput: [3]\nparams: {a: x}\ngraph: [relu]\n")
    assert run("check", str(spec), "--set", 'a="x,y"').exit_code == 0
    assert run("check", str(spec), "--set", "a=x,y").exit_code == 1


def test_specs_are_read_from_stdin() -> None:
    result = run("check", "-", input=LENET.read_bytes())
    assert result.stdout.startswith("<stdin>: lenet, 1x28x28 -> 10")
    wrong = run("check", "-", input="cnngraph: 1\nname: net\ninput: [3]\ngraph: [rellu]\n")
    assert wrong.exit_code == 1
    assert "--> <stdin>:4:9" in wrong.stderr


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"#" * (1 << 20) + b"##", "1,048,5")],
    ids=["empty", "binary", "large"],
)
def test_unusable_stdin_is_a_diagnostic(data: bytes, problem: str) -> None:
    result = run("check", "-", input=data)
    assert result.exit_code == 1
    assert problem in result.stderr


def test_a_folder_stands_for_the_specs_in_it(tmp_path: Path) -> None:
    inner, hidden = tmp_path / "inner", tmp_path / ".cache"
    inner.mkdir()
    hidden.mkdir()
    (tmp_path / "lenet.yaml").write_text(LENET.read_text())
    (inner / "blocks.yml").write_text(LIBRARY)
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (hidden / "old.yaml").write_text("cnngraph: 1\n")
    result = run("check", str(tmp_path), "--format", "json")
    files = [Path(item["file"]).name for item in json.loads(result.stdout)["specs"]]
    assert sorted(files) == ["blocks.yml", "lenet.yaml"]
    assert result.exit_code == 0


def test_a_folder_without_specs_is_an_error(tmp_path: Path) -> None:
    result = run("check", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"error: no YAML file in {tmp_path} has the key `cnngraph`\n"


def test_a_block_library_is_checked_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "lib.yaml"
    path.write_text(LIBRARY)
    result = run("check", str(path), str(LENET))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: a library of 1 block: act\n")
    report = cnngraph.check(path)
    assert report.ok
    assert str(report) == f"{path}: a library of 1 block: act"
    path.write_text(LIBRARY.replace("${kind}", "rellu"))
    assert "did you mean `relu`?" in run("check", str(path)).stderr


def test_a_block_library_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "lib.yaml"
    path.write_text(LIBRARY)
    assert "is a block library" in run("compile", str(path)).stderr
    with pytest.raises(CnngraphError, match="is a block library"):
        cnngraph.compile(path)
