"""The catalogue of a folder of specs, and that the one of the shipped specs is up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from conftest import SPECS

import cnngraph
from cnngraph.zoo.catalog import catalog

NET = """
cnngraph: 1
name: net
paper: A Title
year: 1999
source: https://example.org
input: [3, 16, 16]
graph:
  - conv2d: {name: conv, out_channels: 8, kernel_size: 3, stride: 2, padding: 1}
  - relu
  - aux: {name: side, body: [flatten]}
  - repeat: {name: more, times: 9, body: [conv2d: {out_channels: 8, kernel_size: 1}]}
  - global_avg_pool2d
  - flatten
"""


def test_the_catalogue_of_the_shipped_specs_is_up_to_date() -> None:
    """To update it: `cnngraph catalog specs`."""
    files = catalog(SPECS)
    stale = [str(path) for path, text in files.items() if (SPECS / path).read_text() != text]
    assert not stale
    drawings = {f"drawings/{path.name}" for path in (SPECS / "drawings").iterdir()}
    assert drawings == {str(path) for path in files} - {"README.md"}


def test_a_row_has_the_figures_of_check(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NET)
    (tmp_path / "blocks.yaml").write_text("cnngraph: 1\nblocks: {a: {body: [relu]}}\n")
    files = catalog(tmp_path)
    assert list(files) == [PurePosixPath("drawings/net.svg"), PurePosixPath("README.md")]
    row = files[PurePosixPath("README.md")].splitlines()[-1]
    assert row == (
        "| [net](net.yaml) | 872 | 50.7 k | 3x16x16 | 1 | 1999 | [A Title](https://example.org) "
        "| [drawing](drawings/net.svg) |"
    )


def test_the_command_writes_page_and_drawings(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(NET)
    command = [sys.executable, "-m", "cnngraph", "catalog", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"wrote {tmp_path / 'README.md'} and 1 drawings\n"
    assert (tmp_path / "drawings/net.svg").read_text().startswith("<svg")
    (tmp_path / "net.yaml").write_text(NET.replace("relu", "rleu"))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "did you mean `relu`?" in done.stderr


def test_a_folder_without_networks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(cnngraph.CnngraphError, match="there is no network in"):
        catalog(tmp_path)
