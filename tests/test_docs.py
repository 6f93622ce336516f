"""Every snippet and command of README.md and docs/ is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT

import cnngraph
from cnngraph.errors import Source
from cnngraph.training.experiments import load_experiment
from cnngraph.training.recipe import parse_recipe

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```",
    re.MULTILINE | re.DOTALL,
)


class Snippet(NamedTuple):
    """A fenced block of a page, and the note before it, `<!-- note -->`.

    - `file: net.yaml`: the reader saves the block under this name. If `(invalid)` follows, `check`
      reports mistakes in it.
    - `output: cnngraph ...`: what the command prints.
    - `session: image.png`: the commands run one after another in one folder, which has this image.
    - `printed`: what the Python block before it prints.
    - `golden: name`: the diagnostics in tests/goldens/name.txt.
    - Anything else before YAML: the keys that complete the fragment.

    Attributes:
        index: the number of fenced blocks before it on its page.
        files: name -> text of the files saved so far, this one included.
        code: the last Python block up to here.
    """

    page: Path
    index: int
    line: int
    text: str
    note: str
    files: dict[str, str]
    code: str

    def save(self, folder: Path) -> None:
        """Puts the specs and the files saved so far into a folder."""
        (folder / "specs").symlink_to(ROOT / "specs")
        for name, text in self.files.items():
            (folder / name).write_text(text)

    def compare(self, expected: str, *, update: bool) -> None:
        """Asserts that the block is the expected text, or first makes it so."""
        expected = expected.rstrip() + "\n"
        if update and self.text != expected:
            page = self.page.read_text()
            block = list(_BLOCK.finditer(page))[self.index]
            self.page.write_text(page[: block.start("text")] + expected + page[block.end("text") :])
        assert update or self.text == expected


def snippets(*languages: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        text, code = page.read_text(), ""
        files: dict[str, str] = {}
        for index, match in enumerate(_BLOCK.finditer(text)):
            if name := saved_as(match["note"] or ""):
                files = {**files, name: match["text"]}
            if match["language"] == "python":
                code = match["text"]
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("text"))
                found.append(
                    Snippet(page, index, line, match["text"], match["note"] or "", files, code)
                )
    return found


def noted(note: str) -> list[Snippet]:
    return [snippet for snippet in snippets("text") if snippet.note.startswith(note)]


def saved_as(note: str) -> str | None:
    match = re.match(r"file: ([\w.]+)", note)
    return match and match[1]


def ids(snippet: Snippet) -> str:
    return f"{snippet.page.name}:{snippet.line}"


LONG = re.compile(
    r"cnngraph (bench|experiment|export|import|probe)|cnngraph check specs$|torch\.onnx|sklearn"
)
"""What takes long runs with the slow tests."""


def marked(found: list[Snippet]) -> list[Any]:
    slow = [[pytest.mark.slow] if LONG.search(item.text + item.note) else [] for item in found]
    return [pytest.param(item, marks=marks) for item, marks in zip(found, slow, strict=True)]


@pytest.mark.parametrize("snippet", snippets("yaml"), ids=ids)
def test_specs_are_valid(snippet: Snippet, tmp_path: Path) -> None:
    text: str | Path = snippet.text
    if snippet.text.startswith("recipe:"):
        assert parse_recipe(Source(snippet.page.name, snippet.text))
        return
    if name := saved_as(snippet.note):
        snippet.save(tmp_path)
        text = tmp_path / name
        if snippet.text.startswith("experiment:"):
            assert load_experiment(text)
            return
        if "(invalid)" in snippet.note:
            assert cnngraph.check(text).diagnostics
            return
    else:
        text = completed(snippet)
    report = cnngraph.check(text)
    assert not report.diagnostics, "\n".join(map(str, report.diagnostics))
    if report.graph is not None and report.graph.input.elements < 10**6:
        cnngraph.compile(text)


def completed(snippet: Snippet) -> str:
    """The spec of a fragment: a list of nodes is a graph, anything else the keys of a document."""
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
    snippet._replace(line=snippet.line + index, text=line.split("#")[0].strip())
    for snippet in snippets("bash")
    for index, line in enumerate(snippet.text.splitlines(), 1)
    if without_setup(line) and line.strip() and not line.startswith("#")
    if not snippet.note.startswith("session")
]
SESSIONS = [snippet for snippet in snippets("bash") if snippet.note.startswith("session")]


@pytest.mark.parametrize("snippet", marked(COMMANDS), ids=ids)
def test_commands_run(snippet: Snippet, tmp_path: Path) -> None:
    """In a folder with the specs and the files saved so far."""
    snippet.save(tmp_path)
    run = run_command(snippet.text, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout or "-o" in snippet.text or ">" in snippet.text


@pytest.mark.slow
@pytest.mark.parametrize("snippet", SESSIONS, ids=ids)
def test_sessions_run(snippet: Snippet, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="needs cnngraph[train]")
    from PIL import Image

    snippet.save(tmp_path)
    Image.new("L", (28, 28)).save(tmp_path / snippet.note.removeprefix("session: "))
    for line in snippet.text.splitlines():
        run = run_command(line.split("#")[0].strip(), tmp_path)
        assert run.returncode == 0, run.stderr


def run_command(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    assert command.startswith("cnngraph ")
    if command.startswith("cnngraph train specs"):
        command += " --epochs 1"  # a short form
    command = f"{sys.executable} -m {command}"
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("snippet", marked(noted("output: ")), ids=ids)
def test_commands_print_what_the_page_shows(
    snippet: Snippet, tmp_path: Path, update_goldens: bool
) -> None:
    snippet.save(tmp_path)
    run = run_command(snippet.note.removeprefix("output: "), tmp_path)
    snippet.compare(run.stdout + run.stderr, update=update_goldens)


@pytest.mark.parametrize("snippet", noted("printed"), ids=ids)
def test_python_prints_what_the_page_shows(
    snippet: Snippet, tmp_path: Path, update_goldens: bool, monkeypatch, capsys
) -> None:
    snippet.save(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_python(snippet.code)
    snippet.compare(capsys.readouterr().out, update=update_goldens)


@pytest.mark.parametrize("snippet", noted("golden: "), ids=ids)
def test_diagnostics_are_the_golden_ones(snippet: Snippet, update_goldens: bool) -> None:
    name = snippet.note.removeprefix("golden: ")
    golden = (ROOT / "tests" / "goldens" / f"{name}.txt").read_text()
    snippet.compare(golden, update=update_goldens)


@pytest.mark.parametrize("snippet", marked(snippets("python")), ids=ids)
def test_python_runs(snippet: Snippet, tmp_path: Path, monkeypatch, capsys) -> None:
    snippet.save(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = run_python(snippet.text)
    if "accuracy" in names:
        assert isinstance(names["accuracy"], float)
        assert names["accuracy"] >= 0.97
        assert "test accuracy" in capsys.readouterr().out


def run_python(code: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "snippet"}
    exec(compile(code, "snippet", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_lines_have_at_most_100_columns(page: Path) -> None:
    """Except tables, shown outputs, and the set-up commands."""
    text = _BLOCK.sub(
        lambda block: "" if block["language"] == "text" else block[0], page.read_text()
    )
    long = [line for line in text.splitlines() if len(line) > 100 and not line.startswith("|")]
    assert [line for line in long if without_setup(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for file, heading in links(page):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not heading or heading in slugs(target), f"{file}#{heading}"


def test_the_language_reference_lists_its_headings() -> None:
    page = ROOT / "docs" / "language.md"
    assert slugs(page) - {heading for _, heading in links(page)} == {"the-spec-language"}


def links(page: Path) -> list[tuple[str, str]]:
    """File and heading of each link within the repository."""
    text = _BLOCK.sub("", page.read_text())
    return re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text)


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_trains_lenet() -> None:
    assert any("specs/lenet.yaml" in snippet.text for snippet in snippets("python"))
