"""The commands: output, errors and exit codes."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SPECS
from typer.testing import CliRunner, Result

import cnngraph
from cnngraph.cli import app
from cnngraph.passes import PASSES

GOLDENS = ROOT / "tests" / "goldens"
LENET = str(SPECS / "lenet.yaml")
WRONG = str(GOLDENS / "many_mistakes.yaml")


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args)


def in_process(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cnngraph", *args], capture_output=True, text=True, **options
    )


# check


def test_check_reports_costs_and_input_sizes() -> None:
    result = run("check", str(SPECS / "googlenet.yaml"), LENET)
    assert result.exit_code == 0
    assert result.stderr == ""
    out = result.stdout
    assert "googlenet.yaml: googlenet, 3x224x224 -> 1000\n" in out
    assert "  params  6,624,904 (6.62 M), 171 buffers\n" in out
    assert "  MACs    1,498,376,192 (1.50 G) for one image\n" in out
    assert (
        "  inputs  15x15 and larger (up to 448 tried), output stride 32\n"
        "          below 15: maxpool3: " in out
    )
    assert (
        "  inputs  28 to 31 (up to 64 tried), output stride 4\n"
        "          not 12 to 27, 32 to 64: fc1: " in out
    )


def test_check_reports_every_error_of_every_file() -> None:
    result = run("check", WRONG, LENET, "missing.yaml")
    assert result.exit_code == 1
    assert "lenet, 1x28x28 -> 10" in result.stdout
    golden = (GOLDENS / "many_mistakes.txt").read_text().rstrip()
    assert golden.replace("--> many", f"--> {GOLDENS}{os.sep}many") in result.stderr
    assert "cannot read missing.yaml: it does not exist" in result.stderr
    assert f"{WRONG}: 5 errors\n" in result.stderr
    assert result.stderr.endswith("2 of 3 specs are invalid\n")


def test_warnings_are_reported_and_do_not_fail() -> None:
    result = run("check", str(GOLDENS / "unnamed_weights.yaml"))
    assert result.exit_code == 0
    assert "warning[W401 fragile-name]" in result.stderr
    assert "params" in result.stdout


def test_check_as_json_has_the_same_content() -> None:
    result = run("check", WRONG, LENET, "--format", "json")
    assert result.exit_code == 1
    assert result.stderr == ""
    data = json.loads(result.stdout)
    assert (data["cnngraph"], data["ok"]) == (cnngraph.__version__, False)
    wrong, right = data["specs"]
    assert (wrong["file"], wrong["ok"], wrong["params"], wrong["sizes"]) == (
        WRONG,
        False,
        None,
        None,
    )
    assert [item["code"] for item in wrong["diagnostics"]] == [
        "E105",
        "E104",
        "E101",
        "E103",
        "E103",
    ]
    assert (wrong["diagnostics"][0]["line"], wrong["diagnostics"][0]["column"]) == (6, 44)
    assert right["ok"]
    assert right["diagnostics"] == []
    assert (right["name"], right["input"], right["output"]) == ("lenet", [1, 28, 28], [10])
    assert (right["params"], right["macs"], right["training_macs"]) == (61_706, 416_520, 416_520)
    assert (right["sizes"]["least"], right["sizes"]["valid"], right["sizes"]["tried"]) == (
        28,
        [[28, 31]],
        [1, 64],
    )
    assert right["sizes"]["failures"][-1]["path"] == "fc1"
    assert sum(stage["params"] for stage in right["stages"]) == right["params"]
    assert wrong.keys() == right.keys()


# --set


def test_set_takes_values_in_yaml() -> None:
    data = json.loads(
        run(
            "check", LENET, "--set", "num_classes=7", "--set", "activation=relu", "--format=json"
        ).stdout
    )
    assert data["specs"][0]["output"] == [7]
    resnet = str(SPECS / "resnet18.yaml")
    data = json.loads(run("check", resnet, "--set", "layers=[1, 1, 1, 1]", "--format=json").stdout)
    assert data["specs"][0]["params"] < 11_689_512


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["num_classes"], "`num_classes` is not of the form NAME=VALUE"),
        (["=3"], "`=3` is not of the form NAME=VALUE"),
        (["num_classes=3", "num_classes=4"], "`num_classes` is given twice"),
        (["num_classes=[1"], "this `[` is never closed"),
        (["num_classes="], "`num_classes` has no value"),
    ],
)
@pytest.mark.parametrize("command", ["check", "compile"])
def test_a_malformed_set_option_is_wrong_usage(
    command: str, given: list[str], problem: str
) -> None:
    result = run(command, LENET, *(part for item in given for part in ("--set", item)))
    assert result.exit_code == 2
    assert problem in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("num_classes=many", 'must be a whole number, like its default 10, not "many"'),
        ("num_clases=3", "did you mean `num_classes`?"),
        ("num_classes=0", "`out_features` must be at least 1, not 0"),
    ],
)
@pytest.mark.parametrize("command", ["check", "compile"])
def test_an_invalid_param_is_an_error_of_the_spec(command: str, given: str, problem: str) -> None:
    result = run(command, LENET, "--set", given)
    assert result.exit_code == 1
    assert problem in result.stderr


# compile

SIDE_HEAD = """\
cnngraph: 1
name: sided
input: [3, 16, 16]
graph:
  - conv2d: {name: stem, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
  - batch_norm: {name: bn}
  - relu
  - aux: {name: side, body: [global_avg_pool2d, flatten, {linear: {name: fc, out_features: 5}}]}
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 5}
"""


def test_compile_reports_stages_costs_and_fused_ops(tmp_path: Path) -> None:
    path = tmp_path / "sided.yaml"
    path.write_text(SIDE_HEAD)
    result = run("compile", str(path), "-o", str(tmp_path / "sided.pt"))
    assert result.exit_code == 0
    assert result.stderr == ""
    out = result.stdout
    assert "sided, 3x16x16 -> 5 (in training also side 5)" in out
    assert re.search(r"^side +aux \(training only\) +5 +45 +40$", out, re.MULTILINE)
    assert "55,336 (55.3 k) for one image; 55,376 (55.4 k) in training, with side heads" in out
    assert "fuse_batch_norm_act: 1 x batch_norm + relu (" in out
    assert "channels_last: done (" in out
    assert "kernels  " in out
    assert "load torch" in out
    assert f"saved    {tmp_path / 'sided.pt'} (" in out
    assert cnngraph.load_compiled(tmp_path / "sided.pt").stem.weight.shape == (8, 3, 3, 3)


def test_the_eager_backend_fuses_nothing() -> None:
    result = run("compile", LENET, "--backend", "eager")
    assert "none: plain torch.nn modules" in result.stdout
    assert "PyTorch's own" in result.stdout


def test_compile_predicts_the_memory_of_a_step() -> None:
    spec = str(SPECS / "resnet20_cifar.yaml")
    fast = json.loads(run("compile", spec, "--batch-size", "64", "--format", "json").stdout)[
        "memory"
    ]
    assert (fast["policy"], fast["batch_size"], fast["extra_time"]) == ("fast", 64, 0)
    assert fast["peak"] == fast["weights"] + fast["optimizer"] + fast["input"] + fast["step"]
    assert fast["kept"] <= fast["step"]
    budget = f"{fast['peak'] * 0.6 / 1e6:.1f}MB"
    result = run("compile", spec, "--batch-size", "64", "--memory", budget)
    assert re.search(
        r"memory   [\d.]+ MB at the peak of a training step of batch 64 \(predicted\):"
        r" [\d.]+ MB weights",
        result.stdout,
    )
    policy = rf"{budget}: recomputes \d+ values in backward, about \d+% more time\n"
    assert re.search(policy, result.stdout)
    data = json.loads(
        run("compile", spec, "--batch-size", "64", "--memory", budget, "--format", "json").stdout
    )
    assert data["memory"]["peak"] <= 0.6 * fast["peak"] + 1e5
    assert 0 < data["memory"]["extra_time"] < 0.4
    assert "recompute_to_fit" in [item["name"] for item in data["passes"]]


def test_a_budget_that_is_too_small_is_an_error(tmp_path: Path) -> None:
    result = run(
        "compile",
        str(SPECS / "resnet20_cifar.yaml"),
        "--memory",
        "3MB",
        "-o",
        str(tmp_path / "net.pt"),
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "error: a training step of batch 16 does not fit into 3.0 MB: it needs "
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["--memory", "6"], "or give a budget: 6GB, 512MB, 1.5 GiB"),
        (["--memory", "6GB", "--backend", "eager"], "memory `6GB` is for the backend `fused`"),
        (["--batch-size", "0"], "--batch-size"),
        (["--disable-passes", "channel_last"], "fuse_batch_norm_act"),
        (["--disable-passes", "channels_last,fold_batch_norm"], "fold_batch_norm`"),
    ],
)
def test_contradictory_options_are_wrong_usage(args: list[str], problem: str) -> None:
    result = run("compile", LENET, *args)
    assert result.exit_code == 2
    assert problem in " ".join(result.stderr.replace("│", "").split())
    assert result.stdout == ""


def test_passes_can_be_disabled(tmp_path: Path) -> None:
    path = tmp_path / "sided.yaml"
    path.write_text(SIDE_HEAD)
    out = run("compile", str(path), "--disable-passes", "channels_last").stdout
    assert "fuse_batch_norm_act: 1 x batch_norm + relu" in out
    assert "channels_last" not in out
    every = ",".join(function.__name__ for function in PASSES)
    out = run("compile", str(path), "--disable-passes", every).stdout
    assert "passes   none" in out


def test_compile_prints_the_graph_and_the_code(tmp_path: Path) -> None:
    path = tmp_path / "sided.yaml"
    path.write_text(SIDE_HEAD)
    out = run("compile", str(path), "--print-graph", "--print-code").stdout
    before, _, after = out.partition("# after fuse_batch_norm_act\n")
    assert before.startswith("# after elaborate\ngraph sided(input: 3x16x16)\n")
    assert "bn: 8x16x16 = batch_norm(stem)" in before
    assert "batch_norm_act[batch_norm, relu](stem)" in after
    _, _, code = out.partition("\n# code\n")
    network, _, head = code.partition("\n# side\n")
    assert "def forward(self, x):" in network
    assert "def forward(self, x):" in head


def test_compile_as_json_has_the_same_keys_for_an_invalid_spec() -> None:
    plain = json.loads(run("compile", LENET, "--format", "json").stdout)
    assert (plain["ok"], plain["error"], plain["artifact"]) == (True, None, None)
    assert plain["backend"] == "fused"
    assert plain["passes"][0]["name"] == "fuse_batch_norm_act"
    assert list(plain["seconds"]) == ["check", "load torch", "passes", "lower"]
    assert not {"graphs", "code"} & plain.keys()
    result = run("compile", LENET, "--format", "json", "--print-graph", "--print-code")
    full = json.loads(result.stdout)
    assert [graph["after"] for graph in full["graphs"]][:1] == ["elaborate"]
    assert "def forward(self, x):" in full["code"]
    result = run("compile", WRONG, "--format", "json")
    assert (result.exit_code, result.stderr) == (1, "")
    wrong = json.loads(result.stdout)
    assert (wrong["ok"], len(wrong["diagnostics"])) == (False, 5)
    assert wrong.keys() == plain.keys()


def test_compile_reports_an_invalid_spec() -> None:
    result = run("compile", WRONG)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "error[E105 bad-expression]" in result.stderr


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "net.pt"
    result = run("compile", LENET, "-o", str(nowhere))
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"error: cannot write {nowhere}: the folder {nowhere.parent} does not exist\n"
    )
    data = json.loads(run("compile", LENET, "-o", str(nowhere), "--format", "json").stdout)
    assert data["error"] in result.stderr
    assert run("schema", "-o", str(nowhere)).exit_code == 1
    assert run("compile", LENET, "-o", str(tmp_path)).exit_code == 1
    copy = tmp_path / "net.yaml"
    copy.write_text(SIDE_HEAD)
    result = run("compile", str(copy), "-o", str(copy))
    assert result.exit_code == 2
    assert "it is the spec itself" in result.stderr
    assert copy.read_text() == SIDE_HEAD


def test_files_of_others_are_overwritten_only_with_force(tmp_path: Path) -> None:
    for name in ("net.pt", "schema.json", "README.md"):
        (tmp_path / name).write_text("by hand")
    (tmp_path / "lenet.yaml").write_text((SPECS / "lenet.yaml").read_text())
    commands = {
        "net.pt": ("compile", LENET, "-o", str(tmp_path / "net.pt")),
        "schema.json": ("schema", "-o", str(tmp_path / "schema.json")),
        "README.md": ("catalog", str(tmp_path)),
    }
    for name, command in commands.items():
        result = run(*command)
        assert result.exit_code == 2
        assert f"was not written by `cnngraph {command[0]}`" in " ".join(result.stderr.split())
        assert (tmp_path / name).read_text() == "by hand"
        assert run(*command, "--force").exit_code == 0
        assert run(*command).exit_code == 0  # its own file


def test_a_compiled_network_does_not_get_the_ending_of_another_format(tmp_path: Path) -> None:
    for name in ("net.safetensors", "net.yaml"):
        result = run("compile", LENET, "-o", str(tmp_path / name))
        assert result.exit_code == 1
        assert f"cannot write a compiled network to {tmp_path / name}" in result.stderr
    assert not list(tmp_path.iterdir())


# schema and ops


def test_schema_is_printed_or_written(tmp_path: Path) -> None:
    printed = run("schema").stdout
    assert json.loads(printed) == cnngraph.json_schema()
    target = tmp_path / "schema.json"
    assert run("schema", "-o", str(target)).stdout == ""
    assert target.read_text() == printed


def test_ops_lists_all_ops_or_shows_one() -> None:
    listed = run("ops").stdout
    for kind in ("conv2d", "batch_norm", "relu", "residual", "repeat"):
        assert f"\n{kind} " in f"\n{listed}"
    one = run("ops", "conv2d").stdout
    assert one.startswith("conv2d: 2-D convolution, `torch.nn.Conv2d`")
    assert " out_channels  int >= 1                                    required\n" in one
    assert " stride        int >= 1 | pair of int >= 1                 1\n" in one
    assert (
        "`linear: value` is short for `linear: {out_features: value}`."
        in run("ops", "linear").stdout
    )


def test_ops_as_json_has_every_argument() -> None:
    data = json.loads(run("ops", "--format", "json").stdout)
    kinds = {item["kind"]: item for item in data["ops"]}
    assert kinds["residual"]["composite"]
    assert not kinds["conv2d"]["composite"]
    assert kinds["linear"]["main"] == "out_features"
    arguments = {item["name"]: item for item in kinds["conv2d"]["arguments"]}
    assert arguments["out_channels"] == {
        "name": "out_channels", "required": True, "default": None, "type": "int >= 1",
        "schema": {"type": "integer", "minimum": 1}, "description": "",
    }  # fmt: skip
    assert json.loads(run("ops", "conv2d", "--format", "json").stdout)["ops"] == [kinds["conv2d"]]


def test_an_unknown_op_is_wrong_usage() -> None:
    result = run("ops", "convd")
    assert result.exit_code == 2
    assert "there is no op `convd`; did you mean `conv2d`?" in result.stderr


# usage, help, and the world outside


@pytest.mark.parametrize(
    "args",
    [
        ["check"],
        ["compile"],
        ["nonsense"],
        ["check", LENET, "--nonsense"],
        ["compile", LENET, "--backend", "gpu"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


COMMANDS = [
    [],
    *(
        [name]
        for name in [
            "bench",
            "bench-kernels",
            "catalog",
            "check",
            "compare",
            "compile",
            "diff",
            "draw",
            "evaluate",
            "experiment",
            "export",
            "import",
            "info",
            "literature",
            "ops",
            "predict",
            "probe",
            "report",
            "scaling",
            "schema",
            "summary",
            "train",
            "zoo",
        ]
    ),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples_and_exit_codes_in_80_columns(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Examples:\n" in result.stdout
    assert "Exit codes:" in result.stdout
    usage, *lines = result.stdout.splitlines()
    assert usage.startswith(" ".join(["Usage: cnngraph", *command, "[OPTIONS]"]))
    assert not [line for line in (usage, *lines) if len(line) > 80]
    assert not [line for line in lines if "..." in line.replace(",...", "") or "…" in line]


def test_the_help_of_cnngraph_lists_every_command() -> None:
    listed = run("--help").stdout.partition("Commands:")[2].partition("Examples:")[0]
    assert [[line.split()[0]] for line in listed.split("\n") if line.strip()] == COMMANDS[1:]


def test_the_module_is_called_cnngraph_in_its_help() -> None:
    done = in_process("check", "--help")
    assert done.stdout.startswith("Usage: cnngraph check ")


def test_the_module_prints_the_version() -> None:
    done = in_process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"cnngraph {cnngraph.__version__}\n",
        "",
    )


LIGHT = [
    ["check", LENET],
    ["check", WRONG],
    ["schema"],
    ["ops"],
    ["ops", "conv2d"],
    ["--help"],
    ["compile", WRONG],
]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_light_commands_never_import_torch(args: list[str]) -> None:
    script = "\n".join((
        "import sys",
        f"sys.argv = ['cnngraph', *{args!r}]",
        "from cnngraph.cli import main",
        "try: main()",
        "except SystemExit: pass",
        "assert not {'torch', 'numpy'} & sys.modules.keys()",
        "print('light', file=sys.stderr)",
    ))  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.endswith("light\n"), done.stderr


def test_importing_the_package_imports_no_dependency() -> None:
    others = {"torch", "lightning", "matplotlib", "sklearn", "rich", "typer", "pydantic"}
    script = f"import cnngraph, sys; print(sorted({others} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_closed_pipe_prints_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cnngraph", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_reported_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cnngraph", "ops"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot read or write the output: No space left on device\n"


def test_an_interrupt_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cnngraph.checker.check", interrupt)
    result = run("check", LENET)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "error: interrupted\n")


# terminals


def on_terminal(*args: str, columns: int = 80, **environment: str) -> str:
    """What the command writes when stdout and stderr are a terminal."""
    mother, child = pty.openpty()
    env = {
        key: value
        for key, value in os.environ.items()
        if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    env |= {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "cnngraph", *args], stdin=child, stdout=child, stderr=child, env=env
    )
    os.close(child)
    collected = io.BytesIO()
    try:
        while chunk := os.read(mother, 1 << 16):
            collected.write(chunk)
    except OSError:  # Linux: the other side is closed
        pass
    process.wait()
    os.close(mother)
    return collected.getvalue().decode().replace("\r\n", "\n")


BRACKETS = """\
cnngraph: 1
name: net
input: [3, 8, 8]
graph:
  - conv2d: {name: conv, out_channels: 8, kernel_size: [3, 3], colour: "[bold red]text[/]", x: 1}
"""


def test_diagnostics_are_neither_wrapped_nor_parsed_as_markup(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(BRACKETS)
    coloured = on_terminal("check", str(path))
    plain = on_terminal("check", str(path), NO_COLOR="1")
    assert "\x1b[31m" in coloured
    assert "\x1b" not in plain
    line = BRACKETS.splitlines()[-1]
    assert 80 < len(line) < 120
    assert f"5 | {line}\n  | " in plain
    assert "[bold red]text[/]" in coloured


def test_control_characters_of_a_spec_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text('cnngraph: 1\nname: net\ninput: [4]\ngraph: ["\\e]0;title\\a"]\n')
    out = on_terminal("check", str(path), NO_COLOR="1")
    assert "\x1b" not in out
    assert "\\x1b]0;title\\x07" in out


def test_numbers_are_not_cut_in_a_narrow_terminal() -> None:
    out = on_terminal("compile", str(SPECS / "googlenet.yaml"), columns=50)
    for number in ("118,013,952", "1,498,376,192", "6,624,904", "64x112x112"):
        assert number in out
    assert "…" not in out.rpartition("\x1b[2K")[2]


def test_piped_output_has_no_colour_and_no_trailing_spaces() -> None:
    done = in_process(
        "compile", str(SPECS / "densenet121.yaml"), env={**os.environ, "COLUMNS": "40"}, cwd=ROOT
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]
    assert (
        "features.denseblock3  dense_block x24    1024x14x14  2,837,760    549,126,144\n"
        in done.stdout
    )
