"""Specs of several files: which blocks and params a file sees, variants, and how far a spec can
reach."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT

import cnngraph
from cnngraph.report.check import Report
from cnngraph.spec.loader import load_spec

HEAD = "cnngraph: 1\nname: net\ninput: [4, 8, 8]\n"


@pytest.fixture
def write(tmp_path: Path):
    """Writes files by name, and checks the first one."""

    def write(files: dict[str, str], params: dict | None = None) -> Report:
        for name, text in files.items():
            path = tmp_path / "specs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return cnngraph.check(tmp_path / "specs" / next(iter(files)), params)

    return write


def paths(report: Report) -> list[str]:
    assert report.ok, "\n".join(map(str, report.diagnostics))
    assert report.graph is not None
    return [f"{node.path}={node.op.kind}" for node in report.graph.nodes]


def codes(report: Report) -> list[str]:
    return [diagnostic.code for diagnostic in report.diagnostics]


def library(*blocks: str, imports: str = "") -> str:
    """A library's text; each block as `name: body`."""
    lines = "\n".join(f"  {block}" for block in blocks)
    return f"cnngraph: 1\n{imports}\nblocks:\n{lines}\n"


# --- imports ------------------------------------------------------------------------------------


def test_a_library_may_be_imported_twice(write) -> None:
    """A diamond: both imports bring `act`, which is one block and no contradiction."""
    report = write({
        "net.yaml": HEAD + "imports: [left.yaml, right.yaml, bottom.yaml]\ngraph: [left, right, act]\n",
        "left.yaml": library("left: {body: [act, tanh]}", imports="imports: [bottom.yaml]"),
        "right.yaml": library("right: {body: [act, sigmoid]}", imports="imports: [bottom.yaml]"),
        "bottom.yaml": library("act: {body: [relu]}"),
    })  # fmt: skip
    assert paths(report) == ["0.0.0=relu", "0.1=tanh", "1.0.0=relu", "1.1=sigmoid", "2.0=relu"]


def test_two_blocks_of_one_name_are_refused(write) -> None:
    report = write({
        "net.yaml": HEAD + "imports: [a.yaml, b.yaml]\ngraph: [act]\n",
        "a.yaml": library("act: {body: [relu]}"),
        "b.yaml": library("act: {body: [tanh]}"),
    })  # fmt: skip
    assert codes(report) == ["E114"]


def test_a_librarys_blocks_call_each_other_and_what_it_imports(write) -> None:
    report = write({
        "net.yaml": HEAD + "imports: [blocks/outer.yaml]\ngraph: [outer: {name: o}]\n",
        "blocks/outer.yaml": library(
            "outer: {body: [middle: {name: m}, own: {name: own}]}", "own: {body: [tanh]}",
            "middle: {body: [inner: {name: i}]}", imports="imports: [deep/inner.yaml]",
        ),
        "blocks/deep/inner.yaml": library("inner: {body: [relu, silu]}"),
    })  # fmt: skip
    assert paths(report) == ["o.m.i.0=relu", "o.m.i.1=silu", "o.own.0=tanh"]


def test_a_library_sees_its_own_blocks_and_not_those_of_its_importer(write) -> None:
    """`act` means tanh in the library that has one, and nothing in the library that has none."""
    own = "blocks: {act: {body: [relu]}}\ngraph: [act, outer]\n"
    report = write({
        "net.yaml": HEAD + "imports: [lib.yaml]\n" + own,
        "lib.yaml": library("outer: {body: [act]}"),
    })  # fmt: skip
    assert codes(report) == ["E104"]
    assert "`act`" in report.diagnostics[0].message
    assert report.diagnostics[0].position is not None
    assert report.diagnostics[0].position.source.name.endswith("lib.yaml")


def test_imports_are_transitive(write) -> None:
    report = write({
        "net.yaml": HEAD + "imports: [a.yaml]\ngraph: [a, b]\n",
        "a.yaml": library("a: {body: [b]}", imports="imports: [b.yaml]"),
        "b.yaml": library("b: {body: [relu]}"),
    })  # fmt: skip
    assert paths(report) == ["0.0=relu", "1.0=relu"]


UNIT = "unit: {{params: {{{params}}}, body: [conv2d: {{out_channels: {out}, kernel_size: 1}}]}}"


def test_blocks_of_the_file_see_the_networks_params_and_those_of_a_library_do_not(write) -> None:
    unit = UNIT.format(params="", out='"${width}"')
    network = HEAD + "params: {width: 6}\n"
    assert paths(write({"net.yaml": network + f"blocks: {{{unit}}}\ngraph: [unit]\n"}))
    report = write({
        "net.yaml": network + "imports: [lib.yaml]\ngraph: [unit]\n", "lib.yaml": library(unit),
    })  # fmt: skip
    assert codes(report) == ["E105"]
    assert "width" in report.diagnostics[0].message


def test_a_library_block_does_not_see_loop_variables_or_the_callers_parameters(write) -> None:
    unit = UNIT.format(params="", out='"${w + i}"')
    outer = "outer: {params: {w: 3}, body: [repeat: {times: 1, body: [unit]}]}"
    report = write({
        "net.yaml": HEAD + "imports: [lib.yaml]\ngraph: [outer]\n", "lib.yaml": library(unit, outer),
    })  # fmt: skip
    assert codes(report) == ["E105"]


def test_arguments_are_evaluated_where_the_block_is_called(write) -> None:
    unit = UNIT.format(params="width: ~", out='"${width}"')
    call = 'repeat: {times: 2, body: [unit: {width: "${width + i}"}]}'
    report = write({
        "net.yaml": HEAD + f"params: {{width: 6}}\nimports: [lib.yaml]\ngraph: [{call}]\n",
        "lib.yaml": library(unit),
    })  # fmt: skip
    assert report.graph is not None
    assert [node.shape.channels for node in report.graph.nodes] == [6, 7]


def test_defaults_of_a_block_see_its_earlier_parameters_and_the_shape(write) -> None:
    unit = UNIT.format(
        params='half: "${in_channels // 2}", width: "${half * 3}"', out='"${width + 1}"'
    )
    report = write({
        "net.yaml": HEAD + "imports: [lib.yaml]\ngraph: [unit, unit: {half: 5}, unit: {width: 2}]\n",
        "lib.yaml": library(unit),
    })  # fmt: skip
    assert report.graph is not None
    assert [node.shape.channels for node in report.graph.nodes] == [2 * 3 + 1, 16, 3]


def test_a_mistake_in_a_library_is_shown_there_with_the_call(write) -> None:
    report = write({
        "net.yaml": HEAD + "imports: [blocks/lib.yaml]\ngraph:\n  - unit\n",
        "blocks/lib.yaml": library("unit: {body: [relu: {slope: 1}]}"),
    })  # fmt: skip
    (diagnostic,) = report.diagnostics
    assert diagnostic.code == "E101"
    assert str(diagnostic.position).endswith(os.path.join("blocks", "lib.yaml") + ":4:24")
    assert any(kind == "called" and "net.yaml:6:5" in text for kind, text in diagnostic.notes)


# --- variants -----------------------------------------------------------------------------------

BASE = """
    cnngraph: 1
    name: base
    source: https://example.org/base
    input: [4, 8, 8]
    params: {width: 3, act: relu, extra: ~}
    graph:
      - conv2d: {name: conv, out_channels: "${width}", kernel_size: 1}
      - "${act}"
    expect: {params: 15}
"""


def test_a_chain_of_variants_each_overrides_what_it_names(write) -> None:
    report = write({
        "small.yaml": "cnngraph: 1\nextends: middle.yaml\nname: small\nparams: {act: tanh}\n",
        "middle.yaml": "cnngraph: 1\nextends: base/base.yaml\nparams: {width: 5, act: silu, extra: 1}\n",
        "base/base.yaml": BASE,
    })  # fmt: skip
    assert paths(report) == ["conv=conv2d", "1=tanh"]
    assert report.graph is not None
    assert report.graph.name == "small"
    assert report.graph.input == (4, 8, 8)
    assert report.graph.nodes[0].shape.channels == 5


def test_a_variant_may_override_name_and_input(write, tmp_path: Path) -> None:
    base = BASE.replace("extra: ~", "extra: 1")
    variant = "cnngraph: 1\nextends: base.yaml\n"
    report = write({"net.yaml": variant, "base.yaml": base})
    assert report.graph is not None
    assert (report.graph.name, report.graph.input) == ("base", (4, 8, 8))
    assert load_spec(tmp_path / "specs/net.yaml").reference.source == "https://example.org/base"
    report = write({"net.yaml": variant + "name: mine\ninput: [2, 5, 6]\n", "base.yaml": base})
    assert report.graph is not None
    assert (report.graph.name, report.graph.input) == ("mine", (2, 5, 6))
    assert report.graph.nodes[0].shape == (3, 5, 6)


def test_a_variant_is_not_checked_by_the_expect_of_its_base(write) -> None:
    base = BASE.replace("extra: ~", "extra: 1")
    variant = "cnngraph: 1\nextends: base.yaml\nparams: {width: 5}\n"
    assert write({"base.yaml": base}).ok
    assert write({"net.yaml": variant, "base.yaml": base}).ok
    own = write({"net.yaml": variant + "expect: {params: 26}\n", "base.yaml": base})
    assert codes(own) == ["E301"]
    assert "25" in own.diagnostics[0].message


def test_params_of_the_caller_override_all_others(write) -> None:
    files = {
        "net.yaml": "cnngraph: 1\nextends: base.yaml\nparams: {width: 5, extra: 1}\n",
        "base.yaml": BASE,
    }
    report = write(files, {"width": 9})
    assert report.graph is not None
    assert report.graph.nodes[0].shape.channels == 9
    assert codes(write(files, {"width": "wide"})) == ["E103"]
    assert codes(write(files, {"widht": 9})) == ["E113"]


def test_a_cycle_of_variants_is_refused(write) -> None:
    report = write({
        "a.yaml": "cnngraph: 1\nextends: b.yaml\n",
        "b.yaml": "cnngraph: 1\nextends: c.yaml\n",
        "c.yaml": "cnngraph: 1\nextends: a.yaml\n",
    })  # fmt: skip
    assert codes(report) == ["E112"]


def test_a_variant_of_a_library_lacks_a_network(write) -> None:
    report = write({
        "net.yaml": "cnngraph: 1\nextends: lib.yaml\n", "lib.yaml": library("act: {body: [relu]}"),
    })  # fmt: skip
    assert codes(report) == ["E112"]


def test_every_file_that_was_read_is_known(write, tmp_path: Path) -> None:
    write({
        "net.yaml": "cnngraph: 1\nextends: base.yaml\n",
        "base.yaml": HEAD + "imports: [blocks/lib.yaml]\ngraph: [act]\n",
        "blocks/lib.yaml": library("act: {body: [relu]}"),
    })  # fmt: skip
    files = load_spec(tmp_path / "specs/net.yaml").files
    found = sorted(path.relative_to(tmp_path).as_posix() for path in files)
    assert found == ["specs/base.yaml", "specs/blocks/lib.yaml", "specs/net.yaml"]


# --- how far a spec can reach -------------------------------------------------------------------

KINDS = {
    "import": ("E111", HEAD + "imports: [{}]\ngraph: [relu]\n"),
    "extends": ("E112", "cnngraph: 1\nextends: {}\n"),
}
both_kinds = pytest.mark.parametrize("kind", KINDS)


@both_kinds
@pytest.mark.parametrize(
    "name", ["../../secret.yaml", "sub/../../../secret.yaml", "../../../../../../etc/secret.yaml"]
)
def test_files_above_the_folder_above_are_out_of_reach(
    kind: str, name: str, write, tmp_path: Path
) -> None:
    code, text = KINDS[kind]
    (tmp_path / "secret.yaml").write_text("password: 123\n")
    report = write({"deep/net.yaml": text.format(name)})
    inside = (tmp_path / "specs" / "deep" / name).resolve().is_relative_to(tmp_path / "specs")
    assert not inside
    assert codes(report) == [code]
    assert "out of reach" in report.diagnostics[0].message
    assert "123" not in str(report.diagnostics[0])


@both_kinds
def test_absolute_paths_are_out_of_reach(kind: str, write, tmp_path: Path) -> None:
    code, text = KINDS[kind]
    report = write({"net.yaml": text.format(tmp_path / "specs/lib.yaml"), "lib.yaml": BASE})
    assert codes(report) == [code]
    assert "out of reach" in report.diagnostics[0].message


@both_kinds
@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_symlink_that_leads_out_of_reach_is_refused(
    kind: str, of: str, write, tmp_path: Path
) -> None:
    code, text = KINDS[kind]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.yaml").write_text("password: 123\n")
    folder = tmp_path / "project" / "specs"
    folder.mkdir(parents=True)
    if of == "file":
        (folder / "secret.yaml").symlink_to(outside / "secret.yaml")
    else:
        (folder / "link").symlink_to(outside)
    path = folder / "net.yaml"
    path.write_text(text.format("secret.yaml" if of == "file" else "link/secret.yaml"))
    report = cnngraph.check(path)
    assert codes(report) == [code]
    assert "out of reach" in report.diagnostics[0].message
    assert "123" not in str(report.diagnostics[0])


def test_a_symlink_within_reach_is_followed(write, tmp_path: Path) -> None:
    write(
        {
            "net.yaml": HEAD + "imports: [lib.yaml]\ngraph: [act]\n",
            "real.yaml": library("act: {body: [relu]}"),
        }
    )
    (tmp_path / "specs/lib.yaml").symlink_to("real.yaml")
    assert paths(cnngraph.check(tmp_path / "specs/net.yaml")) == ["0.0=relu"]


@both_kinds
@pytest.mark.parametrize("what", ["pipe", "folder", "missing", "device"])
def test_only_regular_files_can_be_imported(kind: str, what: str, tmp_path: Path) -> None:
    """In a process of its own: reading from a pipe would wait for a writer for ever."""
    code, text = KINDS[kind]
    (tmp_path / "specs").mkdir()
    target = tmp_path / "specs" / "lib.yaml"
    if what == "pipe":
        os.mkfifo(target)
    elif what == "folder":
        target.mkdir()
    elif what == "device":
        target.symlink_to("/dev/zero")
    path = tmp_path / "specs" / "net.yaml"
    path.write_text(text.format("lib.yaml"))
    script = (
        "import sys, cnngraph; [print(d.code, d.message) for d in "
        "cnngraph.check(sys.argv[1]).diagnostics]"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    expected = {
        "pipe": "is not a regular file",
        "folder": "is a folder",
        "missing": "does not exist",
        "device": "out of reach",
    }
    assert run.stdout.startswith(code)
    assert expected[what] in run.stdout
    assert len(run.stdout.splitlines()) == 1


@both_kinds
def test_only_yaml_files_are_read(kind: str, write, tmp_path: Path) -> None:
    code, text = KINDS[kind]
    report = write({"net.yaml": text.format("lib.txt"), "lib.txt": "secret: 123\n"})
    assert codes(report) == [code]
    assert "not a .yaml file" in report.diagnostics[0].message


def test_a_spec_given_as_text_imports_from_the_working_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "lib.yaml").write_text(library("act: {body: [relu]}"))
    monkeypatch.chdir(tmp_path)
    assert paths(cnngraph.check(HEAD + "imports: [lib.yaml]\ngraph: [act]\n")) == ["0.0=relu"]
