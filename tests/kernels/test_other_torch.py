"""An extension that does not fit the installed torch is not used, and that is said once."""

from __future__ import annotations

import pytest
from conftest import in_subprocess

SCRIPT = """
import json, sys, warnings

{extension}
import torch
import cnngraph
from cnngraph import kernels

network = cnngraph.compile('''
cnngraph: 1
name: tiny
input: [3, 8, 8]
graph: [conv2d: {{out_channels: 4, kernel_size: 3}}, batch_norm, relu]
''')
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        network(torch.ones(2, 3, 8, 8)).sum().backward()
found = [str(each.message) for each in caught if "cnngraph" in str(each.message)]
print(json.dumps([kernels.available(), kernels.problem(), found]))
"""

BUILT_FOR_ANOTHER = """
from types import SimpleNamespace
sys.modules["cnngraph._C"] = SimpleNamespace(build_info=lambda: {"torch": "2.1.0"})
"""
MAY_CRASH = """
from types import SimpleNamespace
sys.modules["cnngraph.kernels._built_for"] = SimpleNamespace(torch="2.1.0+cpu")
class Finder:
    def find_spec(self, name, path=None, target=None):
        assert name != "cnngraph._C", "it must not be loaded"
sys.meta_path.insert(0, Finder())
"""
DOES_NOT_LOAD = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "cnngraph._C":
            raise ImportError("undefined symbol: _ZN2at4_ops3addE")
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("extension", "problem"),
    [
        (BUILT_FOR_ANOTHER, "they were built for torch 2.1.0, this is"),
        (MAY_CRASH, "they were built for torch 2.1.0+cpu, this is"),
        (DOES_NOT_LOAD, "undefined symbol: _ZN2at4_ops3addE"),
    ],
    ids=["built for another", "may crash", "does not load"],
)
def test_unfit_extension_is_left_out_with_one_line(extension: str, problem: str) -> None:
    script = SCRIPT.format(extension=extension)
    (available, why, warned), _ = in_subprocess(script)
    assert not available
    assert problem in why
    (line,) = warned
    assert problem in line
    assert "\n" not in line
