"""The widths of texts are those of the widest usual font."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnngraph.drawing.text import shorten, width, wrap


@pytest.mark.parametrize("bold", [False, True])
def test_widths_are_those_of_dejavu_sans(bold: bool) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib brings the font")
    fonts = pytest.importorskip("PIL.ImageFont", reason="Pillow measures it")
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    font = fonts.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf", name)), 1000)
    for character in [*map(chr, range(32, 127)), "×", "…", "–", "é", "→"]:
        assert width(character, bold=bold, size=1000) >= font.getlength(character) - 1
    assert width("basic_block", bold=bold, size=1000) <= 1.05 * font.getlength("basic_block")


def test_shortened_text_keeps_both_ends_and_fits() -> None:
    text = shorten("features.denseblock1.denselayer12", 60)
    assert width(text) <= 60
    head, tail = text.split("…")
    assert "features.denseblock1.denselayer12".startswith(head)
    assert "features.denseblock1.denselayer12".endswith(tail)
    assert shorten("short", 60) == "short"
    assert shorten("layer1.block.2 … layer4.block.2", 70).count("…") == 1


def test_lines_are_broken_after_spaces_underscores_and_dots() -> None:
    assert wrap("adaptive_avg_pool2d", 60) == ["adaptive_avg_", "pool2d"]
    assert wrap("first /2 + projection", 50) == ["first /2 +", "projection"]
    assert all(width(line) <= 30 for line in wrap("x" * 90, 30))
