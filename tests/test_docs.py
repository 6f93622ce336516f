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
    """A fenced block. A note before it, `<!-- key: value -->`, says what a fragment of a spec needs around it.

    `<!-- file: net.yaml -->` is a file that the page's reader saves, `<!-- output: python -m cnngraph ... -->` what a
    command prints. `files` are those saved so far, this one included.
    """

    name: str
    text: str
    note: str
    files: dict[str, str]

    def save(self, folder: Path) -> None:
        """Puts what the page's reader has into a folder: the specs and the files saved so far."""
        (folder / "specs").symlink_to(ROOT / "specs")
        for name, text in self.files.items():
            (folder / name).write_text(text)


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        text = page.read_text()
        files: dict[str, str] = {}
        for match in _BLOCK.finditer(text):
            if name := saved_as(match["note"] or ""):
                files = {**files, name: match["text"]}
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("text"))
                found.append(Snippet(f"{page.name}:{line}", match["text"], match["note"] or "", files))
    return found


def saved_as(note: str) -> str | None:
    match = re.match(r"file: ([\w.]+)", note)
    return match and match[1]


def ids(snippet: Snippet) -> str:
    return snippet.name


@pytest.mark.parametrize("snippet", snippets("yaml"), ids=ids)
def test_specs_hold(snippet: Snippet, tmp_path: Path) -> None:
    """A block that is no whole spec is the graph of one, or what stands before it."""
    text: str | Path = snippet.text
    if name := saved_as(snippet.note):
        snippet.save(tmp_path)
        text = tmp_path / name
        if "does not hold" in snippet.note:
            assert cnngraph.check(text).diagnostics
            return
    else:
        text = completed(snippet)
    report = cnngraph.check(text)
    assert not report.diagnostics, "\n".join(map(str, report.diagnostics))
    if report.graph is not None and report.graph.input.elements < 10**6:
        cnngraph.compile(text)


def completed(snippet: Snippet) -> str:
    text = snippet.text
    if not text.startswith("cnngraph:"):
        header = f"cnngraph: 1\nname: example\n{snippet.note or 'input: [16, 32, 32]'}\n"
        if text.startswith("- "):
            text = "graph:\n" + text
        elif not re.search(r"^graph:", text, re.MULTILINE):
            text += "graph: [identity]\n"
        text = header + text
    return text


def without_setup(command: str) -> bool:
    return "pip install" not in command


COMMANDS = [
    Snippet(f"{snippet.name}+{index}", line.split("#")[0].strip(), "", snippet.files)
    for snippet in snippets("bash")
    for index, line in enumerate(snippet.text.splitlines())
    if without_setup(line) and line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize("snippet", COMMANDS, ids=ids)
def test_commands_run(snippet: Snippet, tmp_path: Path) -> None:
    """The commands, in a folder that has the specs and what the page says to save."""
    snippet.save(tmp_path)
    run = run_command(snippet.text, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout or "-o" in snippet.text


def run_command(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert command.startswith("python -m cnngraph")
    command = command.replace("python", sys.executable, 1)
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)


OUTPUTS = [snippet for snippet in snippets("text") if snippet.note.startswith("output: ")]


@pytest.mark.parametrize("snippet", OUTPUTS, ids=ids)
def test_commands_print_what_the_page_shows(snippet: Snippet, tmp_path: Path) -> None:
    snippet.save(tmp_path)
    run = run_command(snippet.note.removeprefix("output: "), tmp_path)
    assert snippet.text in run.stdout + run.stderr


@pytest.mark.parametrize("snippet", snippets("python"), ids=ids)
def test_python_runs(snippet: Snippet, tmp_path: Path, monkeypatch, capsys) -> None:
    snippet.save(tmp_path)
    monkeypatch.chdir(tmp_path)
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
