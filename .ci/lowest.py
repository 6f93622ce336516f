"""Prints pip constraints: the lowest version of each library that pyproject.toml allows.

torch is left out. Its older builds for x86-64 on PyPI are for CUDA and take gigabytes, so the
lowest torch is tried by hand (`pip install torch==2.11.0`), not on every run.
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
requirements = [*project["dependencies"], *project["optional-dependencies"]["test"]]
for requirement in requirements:
    match = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement)
    if match is None:
        sys.exit(f"{requirement!r} in pyproject.toml does not name a lowest version")
    if match[1] != "torch":
        print(f"{match[1]}=={match[2]}")
