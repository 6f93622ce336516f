"""Broken specs and the exact diagnostics each must give; the texts are part of the product."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import cnngraph
from cnngraph.errors import CODES, render

GOLDENS = Path(__file__).parent / "goldens"
BROKEN = sorted(GOLDENS.glob("*.yaml"))

SECONDS = 2
MEGABYTES = 500


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_diagnostics_are_exactly_these(path: Path, update_goldens: bool, monkeypatch) -> None:
    monkeypatch.chdir(GOLDENS)
    report = cnngraph.check(path.name)
    found = render(report.diagnostics) + "\n"
    golden = path.with_suffix(".txt")
    if update_goldens:
        golden.write_text(found)
    assert report.diagnostics
    assert found == golden.read_text()


def test_every_code_has_a_golden() -> None:
    assert len(BROKEN) >= 60
    texts = "".join(path.with_suffix(".txt").read_text() for path in BROKEN)
    missing = [code for code in CODES if f"[{code} " not in texts]
    assert set(missing) <= {"E001", "E115", "E118"}, (
        "these need a file, a package or code, and have tests of their own"
    )


def test_broken_specs_are_checked_in_little_time_and_memory() -> None:
    """Each broken spec in turn, in a process whose memory is limited; and a spec of 10 MB."""
    script = textwrap.dedent(f"""
        import re, sys, time
        from pathlib import Path
        import cnngraph, cnngraph.checker
        for path in sys.argv[1:]:
            start = time.process_time()  # other work does not count
            report = cnngraph.check(path)
            assert report.diagnostics, path
            assert time.process_time() - start < {SECONDS}, path
            peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
            assert peak < {MEGABYTES}, (path, peak)
    """)
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, BROKEN)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_file_of_10_megabytes_is_refused_without_parsing(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("# " + "x" * 10_000_000)
    (diagnostic,) = cnngraph.check(path).diagnostics
    assert diagnostic.code == "E004"
    assert "10,000,002 bytes" in diagnostic.message


def test_many_short_nodes_stop_at_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("cnngraph: 1\nname: net\ninput: [1]\ngraph:\n" + "  - relu\n" * 60_000)
    codes = {diagnostic.code for diagnostic in cnngraph.check(path).diagnostics}
    assert codes == {"E110"}


def test_unreadable_files(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    for path, problem in [
        (tmp_path / "missing.yaml", "does not exist"),
        (tmp_path, "is a folder"),
        (binary, "not UTF-8"),
    ]:
        (diagnostic,) = cnngraph.check(path).diagnostics
        assert diagnostic.code == "E001"
        assert problem in diagnostic.message
