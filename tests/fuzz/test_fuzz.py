"""A short run of each kind of input, and all that was found before. See the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnngraph import kernels
from fuzz.documents import check_bytes, check_within_reason
from fuzz.files import outcome
from fuzz.hostile import DOCUMENTS
from fuzz.networks import check_network

ROOT = Path(__file__).parents[2]
CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("operators", 1000),
        ("documents", 7),
        ("hostile", len(DOCUMENTS)),
        ("networks", 4),
        ("sizes", 2),
        ("files", 200),
    ],
)
def test_nothing_is_found(kind: str, count: int) -> None:
    if kind == "operators" and not kernels.available():
        pytest.skip("the compiled kernels are not built")
    result = subprocess.run(  # a process of its own, as a finding may end it
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz", kind, "--count", str(count)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_found_before_is_answered(path: Path) -> None:
    data = path.read_bytes()
    if path.suffix == ".yaml":
        check_bytes(data)
        check_within_reason(data.decode(errors="replace"))
    else:
        assert outcome(data).startswith("refused")


@pytest.mark.parametrize(
    "path", [path for path in CORPUS if path.name.startswith("network")], ids=lambda path: path.name
)
def test_networks_that_were_found_before_agree(path: Path) -> None:
    check_network(path.read_text())
