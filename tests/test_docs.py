"""Every snippet and command of README.md and docs/ is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT

import cnngraph

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)


class Snippet(NamedTuple):
    """A fenced block. A note before it, `<!-- key: value -->`, says what a fragment of a spec needs around it."""

    name: str
    text: str
    note: str


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("text"))
                found.append(Snippet(f"{page.name}:{line}", match["text"], match["note"] or ""))
    return found


def ids(snippet: Snippet) -> str:
    return snippet.name


@pytest.mark.parametrize("snippet", snippets("yaml"), ids=ids)
def test_specs_hold(snippet: Snippet) -> None:
    """A block that is no whole spec is the graph of one, or what stands before it."""
    text = snippet.text
    if not text.startswith("cnngraph:"):
        header = f"cnngraph: 1\nname: example\n{snippet.note or 'input: [16, 32, 32]'}\n"
        if text.startswith("- "):
            text = "graph:\n" + text
        elif not re.search(r"^graph:", text, re.MULTILINE):
            text += "graph: [identity]\n"
        text = header + text
    report = cnngraph.check(text)
    assert not report.diagnostics, "\n".join(map(str, report.diagnostics))
    if report.graph is not None and report.graph.input.elements < 10**6:
        cnngraph.compile(text)


def without_setup(command: str) -> bool:
    return "pip install" not in command


COMMANDS = [
    Snippet(f"{snippet.name}+{index}", line.split("#")[0].strip(), "")
    for snippet in snippets("bash")
    for index, line in enumerate(snippet.text.splitlines())
    if without_setup(line) and line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize("snippet", COMMANDS, ids=ids)
def test_commands_run(snippet: Snippet, tmp_path: Path) -> None:
    """The commands, in an empty folder that has the specs."""
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    assert snippet.text.startswith("python -m cnngraph")
    command = snippet.text.replace("python", sys.executable, 1)
    run = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout or "-o" in snippet.text


@pytest.mark.parametrize("snippet", snippets("python"), ids=ids)
def test_python_runs(snippet: Snippet, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": "snippet"}
    exec(compile(snippet.text, snippet.name, "exec", dont_inherit=True), names)
    if "accuracy" in names:
        assert isinstance(names["accuracy"], float)
        assert names["accuracy"] >= 0.97
        assert "test accuracy" in capsys.readouterr().out


def test_the_readmes_diagnostic_is_a_real_one() -> None:
    golden = ROOT / "tests" / "goldens" / "residual_channels.txt"
    assert golden.read_text() in (ROOT / "README.md").read_text()


def test_the_readme_trains_lenet() -> None:
    assert any("specs/lenet.yaml" in snippet.text for snippet in snippets("python"))
