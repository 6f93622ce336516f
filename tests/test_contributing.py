"""CONTRIBUTING.md: its commands work and its paths exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

PAGE = ROOT / "CONTRIBUTING.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="not in a checkout")

TEXT = PAGE.read_text() if PAGE.exists() else ""
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def test_setup_is_that_of_the_readme() -> None:
    pip = [command for command in COMMANDS if command.startswith(("python3", ". ", "pip"))]
    assert " && ".join(pip) in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("command", [command for command in COMMANDS if "pytest" in command])
def test_pytest_commands_name_existing_paths_and_options(command: str) -> None:
    arguments = shlex.split(command.partition("pytest")[2])
    paths = [argument for argument in arguments if argument.startswith("tests")]
    assert all((ROOT / path).exists() for path in paths)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "--help"],  # fails for an unknown option
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_other_commands_are_those_of_the_development_tools() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tools = {re.split("[>=]", tool)[0] for tool in project["optional-dependencies"]["dev"]}
    rest = [
        command
        for command in COMMANDS
        if "pytest" not in command
        and not command.startswith(("python3 -m venv", ". ", "pip", "git"))
    ]
    for command in rest:
        assert command == "python setup.py build_ext --inplace" or command.split()[0] in tools


def test_paths_exist() -> None:
    named = re.findall(r"`([\w./]+/[\w./]*)`", TEXT)
    assert named
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing
