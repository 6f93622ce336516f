"""Where modules come from, and what is said if they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cnngraph import CnngraphError
from cnngraph.importer.named import module_by_name


def test_callable_of_a_module_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text("from torch import nn\ndef tiny():\n    return nn.ReLU()")
    monkeypatch.chdir(tmp_path)
    module, name, _ = module_by_name("my_nets:tiny")
    assert (type(module).__name__, name) == ("ReLU", "tiny")
    assert "" not in sys.path
    with pytest.raises(CnngraphError, match="my_nets has no callable `huge`"):
        module_by_name("my_nets:huge")


def test_errors_of_the_callable_are_named_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_nets.py").write_text("def net():\n    raise RuntimeError('no checkpoint')\n")
    (tmp_path / "worse_nets.py").write_text("def net(:\n")
    monkeypatch.chdir(tmp_path)
    message = r"bad_nets:net cannot be called: .*bad_nets.py:2: no checkpoint"
    with pytest.raises(CnngraphError, match=message):
        module_by_name("bad_nets:net")
    with pytest.raises(CnngraphError, match="bad_nets has no callable `nett`; did you mean `net`"):
        module_by_name("bad_nets:nett")
    with pytest.raises(CnngraphError, match="cannot import worse_nets: invalid syntax"):
        module_by_name("worse_nets:net")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet18", "`resnet18` names no module: write torchvision:NAME"),
        ("no_such_package:net", "cannot import no_such_package: No module named"),
        ("math:pi", "math has no callable `pi`"),
        ("builtins:list", "builtins:list returns a list, not a module"),
    ],
)
def test_source_that_is_no_module(source: str, message: str) -> None:
    with pytest.raises(CnngraphError, match=message):
        module_by_name(source)


def test_name_close_to_a_known_one() -> None:
    try:
        module_by_name("torchvision:resnet18x")
    except CnngraphError as error:
        if "is not installed" in str(error):
            pytest.skip("torchvision is not installed")
        assert "did you mean `resnet18`" in str(error)
