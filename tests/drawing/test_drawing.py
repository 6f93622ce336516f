"""What a drawing says, and how it is saved."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import SPECS
from typer.testing import CliRunner, Result

import cnngraph
from cnngraph.cli import app
from cnngraph.drawing.shapes import Text, Wire

SVG = "{http://www.w3.org/2000/svg}"
STRANGE = """
cnngraph: 1
name: '<script>alert("x")</script>'
input: [3, 8, 8]
graph:
  - conv2d: {out_channels: 4, kernel_size: 3}
"""


def texts(drawing: cnngraph.Drawing) -> list[str]:
    return [shape.text for shape in drawing.sheet[0] if isinstance(shape, Text)]


def draw(name: str, **options: Any) -> cnngraph.Drawing:
    return cnngraph.draw(SPECS / f"{name}.yaml", **options)


def test_a_box_has_name_kind_arguments_and_output() -> None:
    shown = texts(draw("resnet18"))
    start = shown.index("conv1")
    assert shown[start : start + 5] == [
        "conv1",
        "conv2d",
        "7×7, 64, /2",
        "+ BN, relu",
        "64×112×112",
    ]


def test_copies_of_a_block_fold_and_say_how_the_first_differs() -> None:
    shown = texts(draw("resnet18"))
    start = shown.index("layer2")
    assert shown[start : start + 4] == [
        "layer2",
        "basic_block ×2",
        "first /2 + projection",
        "128×28×28",
    ]
    assert shown.count("layer1.0") == 0


def test_each_resolution_is_one_step() -> None:
    shown = texts(draw("resnet18"))
    sizes = [text for text in shown if re.fullmatch(r"\d+×\d+", text)]
    assert sizes == ["112×112", "56×56", "28×28", "14×14", "7×7", "1×1"]


def test_nine_inceptions_are_one_card_with_a_table_of_widths() -> None:
    shown = texts(draw("googlenet"))
    assert shown.count("branch2.0") == 1
    assert shown.count("inception") == 1
    row = shown.index("inception4d")
    assert shown[row : row + 8] == [
        "inception4d",
        "112",
        "144",
        "288",
        "32",
        "64",
        "64",
        "528×14×14",
    ]


def test_rows_of_a_table_are_in_the_order_of_computation() -> None:
    drawn = texts(cnngraph.draw(SPECS / "efficientnet_b0.yaml"))
    rows = [text for text in drawn if text in ("features.2.0", "features.5.0", "features.7")]
    assert rows[-3:] == ["features.2.0", "features.5.0", "features.7"]


def test_dense_layers_are_drawn_once() -> None:
    shown = texts(draw("densenet121"))
    assert shown.count("dense_layer") == 2  # in the block, and as the title of its own card
    assert "×n" in shown
    row = shown.index("features.denseblock3", shown.index("n"))
    assert shown[row + 1] == "24"


def test_a_residual_is_an_arc_and_a_projection_a_rail() -> None:
    spec = """
cnngraph: 1
name: net
input: [8, 8, 8]
graph:
  - residual: [conv2d: {name: a, out_channels: 8, kernel_size: 3, padding: 1}]
"""
    arcs = [
        shape
        for shape in cnngraph.draw(spec).sheet[0]
        if isinstance(shape, Wire) and len(shape.points) == 4
    ]
    assert len(arcs) == 1
    (start, up, over, end) = arcs[0].points
    assert start[1] > up[1] == over[1] < end[1]
    strided = spec.replace("padding: 1}]", "padding: 1, stride: 2}]").replace(
        "residual: [conv2d", "residual: {shortcut: project, body: [conv2d"
    )
    strided = strided.replace("stride: 2}]", "stride: 2}]}")
    drawn = cnngraph.draw(strided)
    assert any("downsample.0" in text for text in texts(drawn))
    assert not [s for s in drawn.sheet[0] if isinstance(s, Wire) and len(s.points) == 4]


BLOCK = """
cnngraph: 1
name: net
input: [8, 16, 16]
blocks:
  step:
    body:
      - residual:
          - conv2d: {name: wide, out_channels: 8, kernel_size: 3, padding: 1, groups: 8}
          - conv2d: {name: out, out_channels: 8, kernel_size: 1}
graph:
  - step: {name: only}
"""


def test_a_short_branch_beside_an_identity_is_no_projection() -> None:
    assert not any("projection" in text for text in texts(cnngraph.draw(BLOCK)))


def test_cards_are_wide_enough_for_arcs() -> None:
    """Two narrow cards side by side would be lower, with letters in place of the arc."""
    drawn = cnngraph.draw(SPECS / "resnet1001_cifar.yaml")
    assert not [s for s in drawn.sheet[0] if isinstance(s, Text) and s.style == "port-text"]


def test_the_facts_go_below_a_title_for_which_there_is_no_space_beside() -> None:
    facts = "3×32×32 to 10, 10.3 M parameters, 1.49 G MACs"
    for width, same_line in ((180, True), (85, False)):
        drawn = cnngraph.draw(SPECS / "resnet1001_cifar.yaml", width=width)
        found = {s.text: s.y for s in drawn.sheet[0] if isinstance(s, Text)}
        assert (found[facts] == found["resnet1001_cifar"]) == same_line


def test_deeper_drawings_open_blocks_in_place() -> None:
    folded, stages, open = (texts(draw("resnet18", depth=depth)) for depth in (1, 2, 3))
    assert "layer1" in folded
    assert "layer1.0 … 1" in stages
    assert "layer1.0.conv1" in open
    assert "basic_block" not in open


def test_a_thousand_layers_are_as_few_boxes_as_a_hundred() -> None:
    assert len(texts(draw("resnet1001_cifar"))) == len(
        texts(draw("resnet1001_cifar", params={"depth": 18}))
    )


def test_text_is_at_least_seven_points_on_180_millimetres() -> None:
    drawing = draw("googlenet")
    root = ElementTree.fromstring(drawing.svg)
    assert root.get("width") == "180.00mm"
    _, _, width, _ = map(float, root.get("viewBox", "").split())
    assert width == pytest.approx(180 / 25.4 * 72, abs=0.01)  # one unit is one point
    assert min(shape.size for shape in drawing.sheet[0] if isinstance(shape, Text)) >= 7
    assert "font:7px" in drawing.svg
    assert len(list(root.iter(f"{SVG}text"))) == len(texts(drawing))


def test_the_width_of_the_sheet_can_be_set() -> None:
    narrow = draw("googlenet", width=85)
    assert 'width="85.00mm"' in narrow.svg
    with pytest.raises(cnngraph.CnngraphError, match="at least 85 mm wide, not 20"):
        draw("googlenet", width=20)
    with pytest.raises(cnngraph.CnngraphError, match="depth of a drawing is at least 1"):
        draw("googlenet", depth=0)


def test_every_class_of_boxes_has_another_hatch() -> None:
    from cnngraph.drawing.style import _HATCHES

    assert len(set(_HATCHES.values())) == len(_HATCHES)


def test_dark_drawings_have_light_text() -> None:
    light, dark = draw("lenet").svg, draw("lenet", dark=True).svg
    assert ".paper{fill:#ffffff}" in light
    assert ".paper{fill:#14181d}" in dark
    assert "fill:#f2f2f2}" in dark


def test_fused_operations_are_shaded_on_request() -> None:
    assert 'class="fused"' not in draw("resnet18").svg
    fused = draw("resnet18", fused=True)
    assert 'class="fused"' in fused.svg
    assert "runs as part of a fused operation" in texts(fused)
    assert "layer1.0.bn1" in fused.shaded


def test_text_of_strangers_is_escaped() -> None:
    drawing = cnngraph.draw(STRANGE)
    ElementTree.fromstring(drawing.svg)
    assert "<script>" not in drawing.svg
    assert "&lt;script&gt;" in drawing.svg


def test_mermaid_escapes_quotes_and_tags() -> None:
    from cnngraph.drawing.mermaid import _escaped

    assert _escaped('a "b" <c> & #d') == "a #quot;b#quot; #lt;c#gt; #amp; #35;d"


def test_an_invalid_spec_cannot_be_drawn() -> None:
    with pytest.raises(cnngraph.SpecError, match="did you mean `relu`"):
        cnngraph.draw("cnngraph: 1\nname: net\ninput: [3, 8, 8]\ngraph: [rleu]\n")


def test_mermaid_has_the_folded_network() -> None:
    lines = draw("googlenet_aux").mermaid.splitlines()
    assert lines[1] == "flowchart LR"
    (inceptions,) = [line for line in lines if "inception ×5" in line]
    name = inceptions.split("[")[0].strip()
    (side, *_) = [line.split("[")[0].strip() for line in lines if '"aux1<br/>' in line]
    assert f"    {name} --> {side}" in lines
    for line in lines[2:]:
        if " --> " in line:
            assert re.fullmatch(r"    (input|n\d+) --> n\d+", line)


def test_mermaid_joins_branches() -> None:
    drawing = draw("shufflenet_v2_x1_0", depth=3).mermaid
    concat = re.findall(r'(n\d+)\(\("concat"\)\)', drawing)
    assert concat
    assert all(len(re.findall(rf"--> {name}$", drawing, re.MULTILINE)) == 2 for name in concat)


def test_drawings_are_saved_by_the_ending(tmp_path: Path) -> None:
    drawing = draw("lenet")
    drawing.save(tmp_path / "net.svg")
    drawing.save(tmp_path / "net.mmd")
    assert (tmp_path / "net.svg").read_text() == drawing.svg == drawing._repr_svg_()
    assert (tmp_path / "net.mmd").read_text() == drawing.mermaid
    with pytest.raises(cnngraph.CnngraphError, match=r"one of .svg, .png, .pdf, .mmd, not as `a"):
        drawing.save(tmp_path / "a.gif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.mmd", "net.svg"]


def test_png_and_pdf_are_made_by_cairosvg(tmp_path: Path) -> None:
    pytest.importorskip("cairosvg", reason="cairosvg is not installed", exc_type=ImportError)
    drawing = draw("lenet")
    drawing.save(tmp_path / "net.png")
    drawing.save(tmp_path / "net.pdf")
    png = (tmp_path / "net.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert abs(int.from_bytes(png[16:20]) - 180 / 25.4 * 300) <= 2  # 300 pixels per inch
    assert (tmp_path / "net.pdf").read_bytes().startswith(b"%PDF")


def test_without_cairosvg_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    with pytest.raises(cnngraph.CnngraphError, match=r'pip install "cnngraph\[draw\]"'):
        draw("lenet").save(tmp_path / "net.pdf")
    assert not list(tmp_path.iterdir())


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["draw", str(SPECS / "lenet.yaml"), *arguments])


def test_the_command_draws_and_overwrites_only_drawings(tmp_path: Path) -> None:
    target = tmp_path / "net.svg"
    assert run("-o", str(target)).stdout == f"wrote {target}\n"
    assert target.read_text() == draw("lenet").svg
    assert run("-o", str(target), "--dark", "--set", "num_classes=7").exit_code == 0
    assert target.read_text() == draw("lenet", dark=True, params={"num_classes": 7}).svg
    target.write_text("<svg>by hand</svg>")
    refused = run("-o", str(target))
    assert refused.exit_code == 2
    assert "was not written by `cnngraph draw`" in " ".join(refused.stderr.split())
    assert target.read_text() == "<svg>by hand</svg>"
    assert run("-o", str(target), "--force").exit_code == 0
    image = tmp_path / "net.png"
    image.write_bytes(b"a photograph")
    assert run("-o", str(image)).exit_code == 2
    assert image.read_bytes() == b"a photograph"


def test_drawing_loads_neither_torch_nor_cairosvg() -> None:
    code = (
        "import sys, cnngraph\n"
        f"cnngraph.draw({str(SPECS / 'resnet18.yaml')!r}, fused=True).svg\n"
        "print({'torch', 'numpy', 'cairosvg', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
