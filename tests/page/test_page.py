"""The page of a report: what it has, that it is safe, small and complete in itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS
from typer.testing import CliRunner

import cnngraph
from cnngraph.cli import app

BROKEN = """
cnngraph: 1
name: broken
input: [3, 32, 32]
graph:
  - conv2d: {name: stem, out_channels: 8, kernel_size: 3}
  - parallel:
      - conv2d: {name: left, out_channels: 8, kernel_size: 3}
      - conv2d: {name: right, out_channels: 8, kernel_size: 1}
  - rleu
"""
STRANGE = """
cnngraph: 1
name: '</script><script>alert(1)</script><img src=x onerror=alert(2)>'
input: [3, 8, 8]
graph:
  - relu   # <!-- </script> ]]> <b onmouseover=alert(3)>
"""


class Elements(HTMLParser):
    """The start tags of a page, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def tree_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert found
    return json.loads(found[1])["tree"]


def leaves(tree: dict[str, Any]) -> list[dict[str, Any]]:
    parts = tree.get("c")
    return [leaf for part in parts for leaf in leaves(part)] if parts else [tree]


@pytest.fixture(scope="module")
def resnet50() -> str:
    return cnngraph.report_page(SPECS / "resnet50.yaml").html


def test_the_page_of_resnet50_is_below_300_kb(resnet50: str) -> None:
    assert len(resnet50.encode()) < 300_000


def test_the_page_loads_nothing(resnet50: str) -> None:
    elements = Elements(resnet50)
    for tag, attributes in elements.found:
        assert tag not in {"link", "img", "iframe", "object", "base"}
        assert not {"src", "href"} & attributes.keys()
    for style in re.findall(r"<style>(.*?)</style>", resnet50, re.DOTALL):
        assert "@import" not in style
        assert "url(" not in style
    scripts = re.findall(r"<script>(.*?)</script>", resnet50, re.DOTALL)
    assert not [script for script in scripts if "fetch" in script or "http" in script]


def test_no_rule_of_the_page_changes_the_drawing() -> None:
    """Rules for HTML such as `.bar {height: 22px}` would apply to an SVG's rectangles."""
    html = cnngraph.report_page(SPECS / "googlenet.yaml").html
    css, svg = (
        re.findall(r"<style>(.*?)</style>", html, re.DOTALL)[0],
        html[html.index("<svg") : html.index("</svg>")],
    )
    rules = [rule for rule in re.findall(r"([^{}]+)\{", css) if ".drawing" not in rule]
    page = {name for rule in rules if ".sheet" not in rule for name in re.findall(r"\.(\w+)", rule)}
    drawn = {word for names in re.findall(r' class="([^"]*)"', svg) for word in names.split()}
    assert "bar" in drawn
    assert not page & drawn


def test_the_tree_has_every_layer_and_adds_up(resnet50: str) -> None:
    report = cnngraph.check(SPECS / "resnet50.yaml")
    assert report.graph is not None
    assert report.summary is not None
    tree = tree_of(resnet50)
    found = leaves(tree)
    assert [leaf["p"] for leaf in found] == [node.path for node in report.graph.nodes]
    assert tree["w"] == sum(leaf["w"] for leaf in found) == report.summary.total.params
    assert tree["m"] == sum(leaf["m"] for leaf in found) == report.summary.total.macs
    assert tree["a"] == 4 * sum(node.shape.elements for node in report.graph.nodes)
    layer1 = next(part for part in tree["c"] if part["p"] == "layer1")
    assert [part["k"] for part in layer1["c"]] == ["bottleneck"] * 3


def test_each_layer_is_linked_to_its_line_in_its_file(resnet50: str) -> None:
    listings = re.findall(r'<ol class="file">(.*?)</ol>', resnet50, re.DOTALL)
    lines = {
        (int(file), int(line)): text
        for file, line, text in re.findall(r'id="line-(\d+)-(\d+)">(.*?)</li>', "".join(listings))
    }
    assert len(listings) == len(cnngraph.check(SPECS / "resnet50.yaml").spec.files)  # type: ignore[union-attr]
    for leaf in leaves(tree_of(resnet50)):
        if leaf["k"] in {"conv2d", "batch_norm", "max_pool2d"} and "downsample" not in leaf["p"]:
            assert leaf["k"] in lines[tuple(leaf["l"])]


def test_fused_layers_and_passes_are_named(resnet50: str) -> None:
    by_path = {leaf["p"]: leaf for leaf in leaves(tree_of(resnet50))}
    assert by_path["layer1.0.bn1"]["f"] == "batch_norm + relu"
    assert "fuse_batch_norm_act: 33 x batch_norm + relu" in resnet50
    assert "output stride 32" in resnet50


def test_text_of_strangers_is_escaped() -> None:
    page = cnngraph.report_page(STRANGE)
    assert page.ok
    elements = Elements(page.html)
    assert not elements.named("img")
    assert not elements.named("b")
    assert len(elements.named("script")) == 2
    assert not [key for _, attributes in elements.found for key in attributes if key[:2] == "on"]
    assert tree_of(page.html)["n"].startswith("</script>")


def test_the_valid_part_of_an_invalid_spec_is_still_drawn() -> None:
    page = cnngraph.report_page(BROKEN)
    assert not page.ok
    assert "cannot join the branches" in page.html
    assert "did you mean `relu`?" in page.html
    assert [leaf["p"] for leaf in leaves(tree_of(page.html))] == ["stem", "1.left", "1.right"]
    assert "Drawing of the part that is valid" in page.html
    assert page.html.count('class="line wrong"') == 2


def test_a_spec_that_cannot_be_read_has_its_diagnostics_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("cnngraph: 1\nname: [\n")
    page = cnngraph.report_page(path)
    assert not page.ok
    assert "bad-yaml" in page.html
    assert tree_of(page.html) is None
    assert "Drawing" not in page.html


def test_a_notebook_displays_the_page_in_a_frame(resnet50: str) -> None:
    page = cnngraph.report_page(SPECS / "resnet50.yaml")
    (frame,) = Elements(page._repr_html_()).named("iframe")
    assert frame["srcdoc"] == resnet50


def test_measured_pages_have_the_time_of_each_layer() -> None:
    page = cnngraph.report_page(SPECS / "lenet.yaml", measure=True)
    tree = tree_of(page.html)
    times = {leaf["p"]: leaf["t"] for leaf in leaves(tree)}
    assert times["conv1"] > 0
    assert tree["t"] == pytest.approx(sum(times.values()))
    assert "report --measure" not in page.html


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_writes_pages_and_overwrites_only_pages(tmp_path: Path) -> None:
    target = tmp_path / "net.html"
    done = run(SPECS / "lenet.yaml", "-o", target, "--set", "num_classes=7")
    assert (done.exit_code, done.stdout) == (0, f"wrote {target}\n")
    assert ">conv1" in target.read_text()
    assert tree_of(target.read_text())["s"] == "7"
    assert run(SPECS / "lenet.yaml", "-o", target).exit_code == 0
    target.write_text("<p>by hand</p>")
    assert run(SPECS / "lenet.yaml", "-o", target).exit_code == 2
    assert target.read_text() == "<p>by hand</p>"
    assert run(SPECS / "lenet.yaml", "-o", target, "--force").exit_code == 0


def test_the_command_fails_for_an_invalid_spec_and_writes_its_page(tmp_path: Path) -> None:
    spec, target = tmp_path / "net.yaml", tmp_path / "net.html"
    spec.write_text(BROKEN)
    assert run(spec, "-o", target).exit_code == 1
    assert "did you mean `relu`?" in target.read_text()
