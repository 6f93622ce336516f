"""Ops that come from outside: registered by hand, or named by an installed package's entry
points."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import nn

import cnngraph
from cnngraph.ops import OPS

SPEC = """
cnngraph: 1
name: net
input: [4, 6, 6]
graph:
  - batch_norm: {name: bn}
  - channel_shift: {name: bias, factor: 3}
  - channel_shift: 2
  - flatten
"""


class Bias(nn.Module):
    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((channels, 1, 1), float(factor)))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input + self.bias


class ChannelShift(cnngraph.Op):
    """Adds a learned value to each channel, and crops a map's border."""

    kind = "channel_shift"
    main = "factor"

    factor: int = 1

    def infer(self, *inputs: cnngraph.TensorShape) -> cnngraph.TensorShape:
        (shape,) = inputs
        if min(shape.spatial) < 3:
            raise cnngraph.ShapeError(
                "channel_shift needs three rows", code="E202", help="use more"
            )
        return shape

    def parameters(self, *inputs: cnngraph.TensorShape) -> dict[str, tuple[int, ...]]:
        return {"bias": (inputs[0].channels, 1, 1)}

    def macs(self, output: cnngraph.TensorShape, *inputs: cnngraph.TensorShape) -> int:
        return output.elements

    def module(self, *inputs: cnngraph.TensorShape) -> nn.Module:
        return Bias(inputs[0].channels, self.factor)


def test_a_registered_op_is_like_any_other() -> None:
    cnngraph.register_op(ChannelShift)
    report = cnngraph.check(SPEC)
    assert report.ok
    assert report.summary is not None
    assert report.summary.total.params == 8 + 4 + 4
    assert report.summary.total.macs == 2 * 4 * 36
    assert report.sizes is not None
    assert report.sizes.least == 3
    assert [str(node.op) for node in report.graph.nodes][1:3] == [
        "channel_shift[factor=3]", "channel_shift[factor=2]",
    ]  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", "fused"])
def test_a_registered_op_compiles(backend: str) -> None:
    cnngraph.register_op(ChannelShift)
    network = cnngraph.compile(SPEC, backend=backend).eval()
    assert [key for key in network.state_dict() if "bn" not in key] == ["bias.bias", "2.bias"]
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(network(x), (network.bn(x) + 5).flatten(1))


def test_mistakes_in_its_arguments_and_shapes_are_diagnostics() -> None:
    cnngraph.register_op(ChannelShift)
    found = cnngraph.check(SPEC.replace("factor: 3", "factr: 3").replace("shift: 2", "shift: two"))
    assert [d.code for d in found.diagnostics] == ["E101", "E103"]
    found = cnngraph.check(SPEC.replace("[4, 6, 6]", "[4, 2, 6]"))
    assert [d.code for d in found.diagnostics] == ["E202"]
    assert found.diagnostics[0].notes[-1] == ("help", "use more")


def test_a_block_cannot_take_its_name() -> None:
    cnngraph.register_op(ChannelShift)
    text = (
        "cnngraph: 1\nname: n\ninput: [4]\nblocks: {channel_shift: {body: [relu]}}\ngraph: [relu]\n"
    )
    assert [d.code for d in cnngraph.check(text).diagnostics] == ["E114"]


def test_an_op_with_a_field_that_cannot_be_hashed() -> None:
    @cnngraph.register_op
    class Tagged(cnngraph.Op):
        kind = "tagged"
        tags: dict[str, int] = {}

        def infer(self, *inputs: cnngraph.TensorShape) -> cnngraph.TensorShape:
            return inputs[0]

        def module(self, *inputs: cnngraph.TensorShape) -> nn.Module:
            return nn.Identity()

    text = (
        "cnngraph: 1\nname: n\ninput: [4, 8, 8]\ngraph:\n  - tagged: {tags: {a: 1}}\n  - tagged\n"
    )
    report = cnngraph.check(text)
    assert report.ok
    assert report.sizes is not None
    assert report.sizes.runs == ((1, 64),)
    assert cnngraph.compile(text)(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 8, 8)


def test_module_class_names_the_module_of_an_op() -> None:
    @cnngraph.register_op
    class Blend(cnngraph.Op):
        kind = "blend"
        module_class = "torch.nn.Linear"
        channels_argument = "in_features"
        out_features: int

        def infer(self, *inputs: cnngraph.TensorShape) -> cnngraph.TensorShape:
            return cnngraph.TensorShape((self.out_features,))

    op = Blend(out_features=3)
    assert op.has_module
    module = op.module(cnngraph.TensorShape((5,)))
    assert isinstance(module, nn.Linear)
    assert (module.in_features, module.out_features) == (5, 3)


def test_the_same_class_may_be_registered_again() -> None:
    assert cnngraph.register_op(ChannelShift) is ChannelShift
    assert cnngraph.register_op(ChannelShift) is ChannelShift
    assert OPS["channel_shift"] is ChannelShift


def test_op_with_another_module_is_refused() -> None:
    cnngraph.register_op(ChannelShift)
    other = type("ChannelShift", (ChannelShift,), {"__module__": "somewhere.else"})
    with pytest.raises(cnngraph.CnngraphError, match="`channel_shift` is already registered, by"):
        cnngraph.register_op(other)
    relu = type("ReLU", (ChannelShift,), {"__module__": "somewhere.else", "kind": "relu"})
    with pytest.raises(cnngraph.CnngraphError, match="`relu` is already registered, by cnngraph"):
        cnngraph.register_op(relu)
    assert OPS["channel_shift"] is ChannelShift
    assert OPS["relu"].__module__ == "cnngraph.ops.activation"


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (nn.ReLU, "is not an op"),
        (lambda shape: shape, "is not an op"),
        (type("Nameless", (cnngraph.Op,), {"__module__": __name__}), "give it a `kind`"),
    ],
    ids=["a module", "a function", "without a kind"],
)
def test_plugins_that_are_not_ops_are_refused(thing: object, message: str) -> None:
    with pytest.raises(cnngraph.CnngraphError, match=message):
        cnngraph.register_op(thing)  # pyright: ignore[reportArgumentType]


def test_a_main_field_must_exist() -> None:
    wrong = type("Wrong", (ChannelShift,), {"__module__": __name__, "kind": "wrong", "main": "no"})
    with pytest.raises(cnngraph.CnngraphError, match="which is none of its fields"):
        cnngraph.register_op(wrong)
    assert "wrong" not in OPS


# --- installed packages -------------------------------------------------------------------------

MODULE = """
    import cnngraph

    @cnngraph.register_op
    class Double(cnngraph.Op):
        kind = "double"

        def infer(self, *inputs):
            return inputs[0].with_channels(2 * inputs[0].channels)

        def emit(self, graph, modules, inputs):
            import torch
            return graph.call_function(torch.cat, ([inputs[0], inputs[0]], 1))
"""
USES_DOUBLE = "cnngraph: 1\nname: net\ninput: [4, 6, 6]\ngraph:\n  - double\n  - relu\n"


def install(folder: Path, distribution: str, module: str, code: str) -> None:
    """A distribution as pip leaves it: a module, and what its metadata says."""
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cnngraph.ops]\n{module} = {module}\n")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=60, cwd=folder, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def test_the_op_of_an_installed_package_is_found(tmp_path: Path) -> None:
    install(tmp_path, "cnngraph-double", "double_ops", MODULE)
    (tmp_path / "net.yaml").write_text(USES_DOUBLE)
    found = run(tmp_path, "-m", "cnngraph", "check", "net.yaml")
    assert found.returncode == 0, found.stderr
    assert "8x6x6" in found.stdout
    script = """
        import cnngraph, torch
        print(tuple(cnngraph.compile("net.yaml")(torch.zeros(1, 4, 6, 6)).shape))
    """
    found = run(tmp_path, "-c", textwrap.dedent(script))
    assert found.stdout == "(1, 8, 6, 6)\n", found.stderr


def test_without_the_package_the_op_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "net.yaml").write_text(USES_DOUBLE)
    found = run(tmp_path, "-m", "cnngraph", "check", "net.yaml")
    assert found.returncode == 1
    assert "error[E104 unknown-op]: there is no op or block `double`" in found.stdout + found.stderr


def test_plugins_are_imported_only_for_an_op_that_is_not_built_in(tmp_path: Path) -> None:
    install(tmp_path, "cnngraph-broken", "broken_ops", "raise RuntimeError('must not be imported')")
    (tmp_path / "net.yaml").write_text(USES_DOUBLE.replace("double", "tanh"))
    found = run(tmp_path, "-m", "cnngraph", "check", "net.yaml")
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('out of order')", "out of order"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
        ("def (", "invalid syntax"),
        (MODULE.replace('"double"', '"relu"'), "already registered"),
        ("raise SystemExit(3)", "3"),
    ],
    ids=["raises", "imports what is missing", "is no Python", "takes a taken name", "exits"],
)
def test_a_plugin_that_cannot_be_loaded_is_one_diagnostic(
    code: str, reason: str, tmp_path: Path
) -> None:
    install(tmp_path, "cnngraph-broken", "broken_ops", code)
    (tmp_path / "net.yaml").write_text(USES_DOUBLE)
    found = run(tmp_path, "-m", "cnngraph", "check", "net.yaml")
    text = found.stdout + found.stderr
    assert found.returncode == 1
    assert "Traceback" not in text
    assert text.count("error[") == 1
    assert "error[E115 bad-plugin]" in text
    assert "`broken_ops` of cnngraph-broken cannot be loaded" in text
    assert reason in text


def test_broken_plugin_is_reported_every_time(tmp_path: Path) -> None:
    """Not only by the first spec that is checked: it would look as if the op did not exist."""
    install(tmp_path, "cnngraph-broken", "broken_ops", "raise RuntimeError('out of order')")
    install(tmp_path, "cnngraph-double", "double_ops", MODULE)
    (tmp_path / "net.yaml").write_text(USES_DOUBLE.replace("double", "triple"))
    script = """
        import cnngraph
        for _ in range(2):
            print([d.code for d in cnngraph.check("net.yaml").diagnostics])
    """
    found = run(tmp_path, "-c", textwrap.dedent(script))
    assert found.stdout == "['E115']\n['E115']\n", found.stderr
