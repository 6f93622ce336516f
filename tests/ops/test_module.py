"""`module`, `plugins` and `--plugin`: code that a spec runs, if the user allows it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from conftest import every_target
from torch import nn
from typer.testing import CliRunner

import cnngraph
from cnngraph.cli import app
from cnngraph.ops import load_plugin_file

SPEC = """
cnngraph: 1
name: net
input: [4, 8, 8]
params: {width: 6}
graph:
  - conv2d: {name: conv, out_channels: "${width}", kernel_size: 3, padding: 1}
  - module: {name: mixed, class: CLASS, args: ARGS}
  - relu
"""


class Gate(nn.Module):
    """A module with a parameter, a buffer and a convolution."""

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.zeros(1))
        self.conv = nn.Conv2d(channels, 2 * channels, 1, groups=groups)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.conv(input * self.scale + self.shift)


class ReadsItsValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rates = torch.linspace(0, 1, 3).tolist()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input * self.rates[1]


def spec(name: str, args: str = "{}") -> str:
    return SPEC.replace("CLASS", name).replace("ARGS", args)


def found(text: str) -> list[str]:
    return [d.code for d in cnngraph.check(text, allow_code=True).diagnostics]


GATE = spec(f"{__name__}.Gate", '{channels: "${in_channels}", groups: 2}')


@every_target
def test_a_module_is_a_node_like_any_other(target) -> None:
    report = cnngraph.check(GATE, allow_code=True)
    assert report.ok
    assert report.graph is not None
    assert report.graph.by_path["mixed"].shape == (12, 8, 8)
    net = cnngraph.compile(GATE, allow_code=True, **target)
    assert isinstance(net.mixed, Gate)
    total = sum(parameter.numel() for parameter in net.parameters())
    assert report.summary is not None
    assert report.summary.total.params == total
    assert report.summary.total.macs == 8 * 8 * (4 * 6 * 9 + 12 * 3)
    assert list(net.state_dict())[2:] == [
        "mixed.scale", "mixed.shift", "mixed.conv.weight", "mixed.conv.bias"
    ]  # fmt: skip
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(net(x), net.mixed(net.conv(x)).relu())
    torch.testing.assert_close(net.eval().for_inference()(x), net(x))
    assert net.compilation.spec.allows_code


def test_its_shape_is_found_for_every_input_size() -> None:
    sizes = cnngraph.check(
        spec("torch.nn.LPPool2d", "{norm_type: 2, kernel_size: 3}"), allow_code=True
    ).sizes
    assert sizes is not None
    assert sizes.least == 3
    assert found(spec(f"{__name__}.ReadsItsValues")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (spec("torch.nn.Sofshrink"), "cannot be imported: module 'torch.nn' has no attribute"),
        (spec("nowhere.Class"), "cannot be imported: No module named 'nowhere'"),
        (spec("Class"), "cannot be imported"),
        (spec("torch.relu", "{input: 1}"), "cannot be made of these `args`"),
        (spec("builtins.dict"), "is no subclass of torch.nn.Module"),
        (spec("torch.nn.Softshrink", "{lamb: 1}"), "unexpected keyword argument 'lamb'"),
        (spec("torch.nn.Conv2d", "{in_channels: 3, out_channels: 4, kernel_size: 1}"),
         "cannot be called with 6x8x8"),
        (spec("torch.nn.LSTM", "{input_size: 8, hidden_size: 3}"), "cannot be called with"),
        (spec("torch.nn.Flatten", "{start_dim: 0}"), "must keep the batch"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_class_is_one_diagnostic(text: str, words: str) -> None:
    (diagnostic,) = cnngraph.check(text, allow_code=True).diagnostics
    assert diagnostic.code == "E118"
    assert words in diagnostic.message
    assert "\n" not in diagnostic.message
    assert diagnostic.notes[-1][0] == "help"


def test_without_permission_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    net = tmp_path / "net.yaml"
    net.write_text(spec("trap.Trap").replace("params:", "plugins: [trap.py]\nparams:"))
    assert [d.code for d in cnngraph.check(net).diagnostics] == ["E117", "E117"]
    with pytest.raises(cnngraph.SpecError, match="does not allow"):
        cnngraph.compile(net)
    saved = tmp_path / "net.pt"
    cnngraph.save_compiled(cnngraph.compile(GATE, allow_code=True), saved)
    with pytest.raises(cnngraph.SpecError, match="does not allow"):
        cnngraph.load_compiled(saved)
    assert isinstance(cnngraph.load_compiled(saved, allow_code=True).mixed, Gate)


PLUGIN = textwrap.dedent("""
    import cnngraph

    @cnngraph.register_op
    class Twice(cnngraph.Op):
        kind = "twice"

        def infer(self, *inputs):
            return inputs[0].with_channels(2 * inputs[0].channels)

        def emit(self, graph, modules, inputs):
            import torch
            return graph.call_function(torch.cat, ([inputs[0], inputs[0]], 1))
""")
USES = "cnngraph: 1\nname: net\ninput: [4, 6, 6]\ngraph: [twice]\n"


def test_plugins_of_a_spec_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ops.py").write_text(PLUGIN)
    net = tmp_path / "net.yaml"
    net.write_text(USES.replace("input:", "plugins: [ops.py]\ninput:"))
    assert cnngraph.check(net, allow_code=True).ok
    assert cnngraph.compile(net, allow_code=True)(torch.ones(1, 4, 6, 6)).shape == (1, 8, 6, 6)
    net.write_text(net.read_text().replace("ops.py", "no.py"))
    codes = [d.code for d in cnngraph.check(net, allow_code=True).diagnostics]
    assert codes[0] == "E115"


@pytest.mark.parametrize(
    ("code", "words"),
    [("def (", "invalid syntax"), ("1 / 0", "division by zero"), ("exit(3)", "3")],
)
def test_a_file_that_cannot_be_loaded_is_one_error(tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "ops.py").write_text(code)
    (tmp_path / "net.yaml").write_text(USES)
    arguments = ["check", str(tmp_path / "net.yaml"), "--plugin", str(tmp_path / "ops.py")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    with pytest.raises(cnngraph.SpecError, match=words):
        load_plugin_file(tmp_path / "ops.py")


@pytest.mark.parametrize("command", ["check", "compile"])
def test_a_plugin_on_the_command_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "ops.py").write_text(PLUGIN)
    (tmp_path / "net.yaml").write_text(USES)
    arguments = [command, str(tmp_path / "net.yaml")]
    assert CliRunner().invoke(app, arguments).exit_code == 1
    result = CliRunner().invoke(app, [*arguments, "--plugin", str(tmp_path / "ops.py")])
    assert result.exit_code == 0, result.output
    assert "8x6x6" in result.output


def test_allow_code_on_the_command_line(tmp_path: Path) -> None:
    net = tmp_path / "net.yaml"
    net.write_text(spec("torch.nn.Softshrink"))
    assert CliRunner().invoke(app, ["check", str(net)]).exit_code == 1
    for command in ("check", "compile"):
        result = CliRunner().invoke(app, [command, str(net), "--allow-code"])
        assert result.exit_code == 0, result.output
