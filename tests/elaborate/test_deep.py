"""The cost of checking and compiling networks of a thousand layers."""

from __future__ import annotations

import cProfile
import pstats
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import ROOT, SPECS

import cnngraph

MEASURED = """
import re, sys
from pathlib import Path
import cnngraph

assert cnngraph.check(sys.argv[1]).ok
network = cnngraph.compile(sys.argv[1])
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet1001_cifar", "resnet1202_cifar"])
def test_a_thousand_layers_compile_in_little_memory(name: str) -> None:
    command = [sys.executable, "-c", MEASURED, str(SPECS / f"{name}.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1500  # megabytes


def calls(function: Callable[[], object]) -> int:
    """The number of Python calls that a function makes, which is independent of the machine."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return pstats.Stats(profile).total_calls  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
@pytest.mark.parametrize("function", [cnngraph.check, cnngraph.compile])
def test_the_work_grows_linearly_with_the_depth(function: Callable[..., object]) -> None:
    function(SPECS / "resnet20_cifar.yaml")  # first calls import
    work = {
        depth: calls(lambda depth=depth: function(SPECS / f"resnet{depth}_cifar.yaml")) / depth
        for depth in (56, 110, 1202)
    }
    assert work[110] < 1.1 * work[56]
    assert work[1202] < 1.1 * work[110]


@pytest.mark.parametrize(("name", "most"), [("resnet18", 13_500), ("resnet1001_cifar", 300_000)])
def test_a_check_takes_few_calls(name: str, most: int) -> None:
    """Calls of Python functions follow the time, and do not depend on the machine."""
    path = SPECS / f"{name}.yaml"
    cnngraph.check(path)
    assert calls(lambda: cnngraph.check(path)) < most


def test_costs_and_input_sizes_are_computed_when_asked_for() -> None:
    report = cnngraph.check(SPECS / "resnet18.yaml")
    assert not {"summary", "sizes"} & vars(report).keys()
    assert report.sizes is report.sizes
    assert report.summary is report.summary


@pytest.mark.parametrize(
    ("node", "code"),
    [("relu: {nam: 3}", "E101"), ("conv: 3", "E104"), ("share: nothing", "E109")],
)
def test_mistakes_in_many_copies_are_reported_once_and_end_the_check(node: str, code: str) -> None:
    text = f"""
cnngraph: 1
name: copies
input: [3, 8, 8]
graph:
  - repeat: {{times: 9000, body: [{{{node}}}]}}
"""
    found = cnngraph.check(text).diagnostics
    assert [item.code for item in found] == [code, "E110"]
    assert "5,000 copies" in found[1].message
