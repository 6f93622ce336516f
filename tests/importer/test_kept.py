"""Submodules that the language has no words for can stay modules."""

from __future__ import annotations

from pathlib import Path

import hand_written_attention as written
import pytest
import torch
from table import with_statistics
from torch import nn
from typer.testing import CliRunner

import cnngraph
from cnngraph import CnngraphError
from cnngraph.cli import app
from cnngraph.importer import from_module

pytestmark = pytest.mark.usefixtures("one_thread")


def test_attention_stays_a_module_with_its_keys() -> None:
    module = with_statistics(written.WithAttention())
    imported = from_module(module, (3, 16, 16), allow_code=True)
    network = imported.compile(backend="eager").eval()
    assert list(network.state_dict()) == list(module.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(network(x), module(x))


def test_arguments_are_those_of_the_constructor() -> None:
    spec = from_module(written.WithAttention(), (3, 16, 16), allow_code=True).spec
    assert "class: hand_written_attention.Attention, args: {dim: 8}}" in spec
    assert "args: {dim: 16, num_heads: 4}" in spec


def test_module_around_one_of_several_inputs_stays() -> None:
    imported = from_module(written.WithAttention(), (3, 16, 16), allow_code=True)
    assert "class: hand_written_attention.Wrapped, args: {channels: 16}}" in imported.spec
    assert not cnngraph.check(imported.spec).ok
    assert cnngraph.check(imported.spec, allow_code=True).ok


def test_arguments_that_differ_are_expressions_in_a_block() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), written.Block(8, 4), nn.Conv2d(8, 16, 3), written.Block(16, 4)
    )
    spec = from_module(module, (3, 16, 16), allow_code=True).spec
    assert 'args: {dim: "${in_channels}", num_heads: 4}' in spec


def test_nothing_stays_where_the_language_has_words() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    imported = from_module(module, (3, 16, 16), allow_code=True)
    assert imported.spec == from_module(module, (3, 16, 16)).spec
    assert imported.kept == ()


def test_module_of_torch_stays_under_its_documented_name() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softshrink(0.1))
    spec = from_module(module, (3, 16, 16), allow_code=True).spec
    assert "class: torch.nn.Softshrink, args: {lambd: 0.1}" in spec


def test_error_names_the_way_out() -> None:
    with pytest.raises(CnngraphError, match=r"\n  help: `--allow-code`, or `allow_code=True`"):
        from_module(written.WithAttention(), (3, 16, 16))


def test_module_whose_arguments_are_not_known_is_an_error() -> None:
    message = r"no word for `sort` in `attn`\n  help: .*`attn` \(Forgetful\) cannot stay a module: "
    with pytest.raises(CnngraphError, match=message):
        from_module(written.Forgets(), (4, 16, 16), allow_code=True)


def test_command_names_the_classes_in_the_spec(tmp_path: Path) -> None:
    spec = tmp_path / "net.yaml"
    source = "hand_written_attention:WithAttention"
    args = ["import", source, "--input", "3,16,16", "-o", str(spec)]
    assert "--allow-code" in CliRunner().invoke(app, args).stderr
    weights = tmp_path / "net.safetensors"
    result = CliRunner().invoke(app, [*args, "--allow-code", "--weights", str(weights)])
    assert result.exit_code == 0, result.output
    classes = "hand_written_attention.Attention and hand_written_attention.Wrapped"
    assert f"# It needs --allow-code, for {classes}.\n" in spec.read_text()
    assert weights.exists()
