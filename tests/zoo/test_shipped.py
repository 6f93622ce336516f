"""The networks that are installed with the package: by name, as a list, and as files of one's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, SPECS
from typer.testing import CliRunner, Result

import cnngraph
from cnngraph.checker import read_spec
from cnngraph.cli import app
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.spec.shipped import shipped_names, specs_folder
from cnngraph.zoo.standalone import standalone


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args)


def test_every_spec_has_a_name_and_block_libraries_have_none() -> None:
    files = {path.relative_to(SPECS).with_suffix("").as_posix() for path in SPECS.rglob("*.yaml")}
    libraries = {name for name in files if name.startswith("blocks/")}
    assert libraries
    assert set(shipped_names()) == files - libraries
    assert not cnngraph.check("blocks/conv").ok


def test_functions_and_commands_take_names(elsewhere: Path) -> None:
    report = cnngraph.check("resnet50")
    assert (report.name, report.summary.total.params) == ("resnet50", 25_557_032)
    assert cnngraph.compile("d2l/lenet", {"num_classes": 7})[-1].out_features == 7
    assert "resnet50: resnet50, 3x224x224 -> 1000\n" in run("check", "resnet50").stdout
    result = run("compile", "lenet", "-o", "lenet.pt")
    assert result.exit_code == 0, result.output
    assert cnngraph.load_compiled("lenet.pt").compilation.graph.name == "lenet"
    assert run("literature").exit_code == 0


def test_a_file_is_preferred_to_a_name_and_a_folder_is_not(elsewhere: Path) -> None:
    (elsewhere / "resnet50").write_text("cnngraph: 1\nname: mine\ninput: [8]\ngraph: [relu]\n")
    assert cnngraph.check("resnet50").graph.name == "mine"
    (elsewhere / "resnet18").mkdir()
    assert cnngraph.check("resnet18").graph.name == "resnet18"


@pytest.mark.parametrize(
    ("name", "help"),
    [
        ("resnet51", "did you mean `resnet50`?"),
        ("lenet5", "did you mean `lenet`?"),
        ("resnet1001", "did you mean `resnet1001_cifar`?"),
        ("hrnet", "did you mean `hrnet_w18_small`?"),
        ("resnetv2", "did you mean `resnetv2_101`, `resnetv2_18` or `resnetv2_50`?"),
        ("resnet50.yaml", "without `.yaml`, `resnet50` is a network of `cnngraph zoo`"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest(
    elsewhere: Path, name: str, help: str
) -> None:
    (mistake,) = cnngraph.check(name).diagnostics
    assert (mistake.code, mistake.notes) == ("E001", (("help", help),))
    with pytest.raises(cnngraph.SpecError, match="it does not exist"):
        cnngraph.compile(name)


@pytest.mark.parametrize("name", shipped_names())
def test_a_printed_spec_is_a_file_of_its_own_and_means_the_same(name: str) -> None:
    text = standalone(SPECS / f"{name}.yaml")
    assert yaml.safe_load(text).keys().isdisjoint({"imports", "extends"})
    own, shipped = read_spec(text), read_spec(name)
    assert str(elaborate_or_raise(own, {})) == str(elaborate_or_raise(shipped, {}))
    assert own.params.keys() == shipped.params.keys()
    assert (own.expected, own.reference) == (shipped.expected, shipped.reference)


def test_a_printed_spec_keeps_comments_and_only_the_blocks_that_it_uses() -> None:
    text = run("zoo", "googlenet_aux").stdout
    assert text.startswith("# GoogLeNet with its two side heads")
    assert "side_heads: [inception4a, inception4d]   # the modules that they read\n" in text
    assert "  # conv -> batch norm -> ReLU" in text
    assert "imagenet_to_half" not in run("zoo", "inception_v2").stdout


def test_the_list_has_the_figures_of_check() -> None:
    entries = {e["name"]: e for e in json.loads(run("zoo", "--format", "json").stdout)["networks"]}
    assert list(entries) == shipped_names()
    assert entries["googlenet"] == {
        "name": "googlenet",
        "params": 6_624_904,
        "macs": 1_498_376_192,
        "input": [3, 224, 224],
        "year": 2014,
        "paper": "Going Deeper with Convolutions",
        "source": "https://arxiv.org/abs/1409.4842",
    }
    (line,) = [line for line in run("zoo").stdout.splitlines() if line.startswith("googlenet ")]
    assert line.split()[1:] == [
        "https://arxiv.org/abs/1409.4842", "2014", "6.62", "M", "1.50", "G", "3x224x224",
    ]  # fmt: skip


def test_one_network_as_json_has_its_text() -> None:
    (entry,) = json.loads(run("zoo", "lenet", "--format", "json").stdout)["networks"]
    assert entry["spec"] == standalone(SPECS / "lenet.yaml")


def test_an_unknown_network_is_wrong_usage() -> None:
    result = run("zoo", "resnet5")
    assert (result.exit_code, "did you mean `resnet50`?" in result.stderr) == (2, True)


def test_specs_of_the_repository_are_read_in_a_checkout() -> None:
    assert specs_folder() == SPECS


@pytest.mark.slow
def test_a_wheel_and_an_sdist_contain_the_specs(tmp_path: Path) -> None:
    """The network is checked outside the repository, with the package from the wheel."""
    source, site = tmp_path / "source", tmp_path / "site"
    for name in ("cnngraph", "specs", "csrc"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = (
        "import setuptools.build_meta as build; build.build_sdist('dist');"
        "build.build_wheel('dist'); build.build_editable('editable')"
    )
    environment = {"CNNGRAPH_NO_EXTENSION": "1", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", build], cwd=source, env=environment, check=True)
    (wheel,) = (source / "dist").glob("*.whl")
    (sdist,) = (source / "dist").glob("*.tar.gz")
    (editable,) = (source / "editable").glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    shutil.unpack_archive(sdist, tmp_path / "sdist")
    shutil.unpack_archive(editable, tmp_path / "editable", "zip")
    expected = sorted(path.relative_to(SPECS) for path in SPECS.rglob("*.yaml"))
    (unpacked,) = (tmp_path / "sdist").iterdir()
    for folder in (site / "cnngraph" / "specs", unpacked / "specs"):
        assert sorted(path.relative_to(folder) for path in folder.rglob("*.yaml")) == expected
    assert not list((tmp_path / "editable").rglob("*.yaml"))  # it reads the source's
    printed = subprocess.run(
        [sys.executable, "-m", "cnngraph", "check", "googlenet"],
        cwd=site,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert "googlenet: googlenet, 3x224x224 -> 1000" in printed.stdout, printed.stderr
