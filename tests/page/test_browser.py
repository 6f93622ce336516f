"""The page in a headless Chromium: clicks, keys, search, themes and print."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS

import cnngraph

pytestmark = pytest.mark.slow

sync_api: Any = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name in ("resnet50", "resnet1001_cifar", "googlenet_aux"):
        cnngraph.report_page(SPECS / f"{name}.yaml").save(folder / f"{name}.html")
    return folder


@pytest.fixture
def visit(browser: Any, folder: Path) -> Iterator[Any]:
    """Opens a page; after the test, nothing may have been reported or requested."""
    faults: list[str] = []
    opened: list[Any] = []

    def visit(name: str = "resnet50", **options: Any) -> Any:
        page = browser.new_page(viewport={"width": 1300, "height": 900}, **options)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url[:5] == "file:" else faults.append(request.url),
        )
        page.goto(f"file://{folder / name}.html")
        opened.append(page)
        return page

    yield visit
    for page in opened:
        page.close()
    assert not faults


def row(page: Any, path: str) -> Any:
    return page.locator(f'.row:has(.name[title="{path}"])').first


def test_a_click_unfolds_a_block_and_marks_its_line_and_its_box(visit: Any) -> None:
    page = visit()
    assert row(page, "layer1").get_attribute("aria-expanded") == "false"
    row(page, "layer1").click()
    assert row(page, "layer1").get_attribute("aria-expanded") == "true"
    row(page, "layer1.0").click()
    row(page, "layer1.0.conv2").click()
    assert row(page, "layer1.0.conv2").get_attribute("aria-selected") == "true"
    assert page.locator(".line.chosen").inner_text().strip() == "- conv2d:"
    assert page.locator(".sheet .chosen").get_attribute("data-path") == "layer1.0.conv2"
    assert "parameters 36.9 k" in page.locator("#details").inner_text()
    row(page, "layer1").click()  # marks it
    row(page, "layer1").click()
    assert row(page, "layer1").get_attribute("aria-expanded") == "false"


def test_a_line_of_the_spec_shows_what_comes_from_it(visit: Any) -> None:
    page = visit()
    line = page.locator('.line.linked:has-text("name: conv3")').first
    line.hover()
    line.click()
    assert "come from this line" in page.locator("#details").inner_text()
    page.locator('#details button:has-text("layer3.5.conv3")').click()
    assert row(page, "layer3.5.conv3").get_attribute("aria-selected") == "true"


def test_a_box_of_the_drawing_leads_to_the_tree(visit: Any) -> None:
    page = visit()
    page.locator('.sheet [data-path="layer4"]').first.click()
    assert row(page, "layer4").get_attribute("aria-selected") == "true"


def test_search_finds_layers_by_path_kind_and_arguments(visit: Any) -> None:
    page = visit()
    page.keyboard.press("/")
    page.keyboard.type("layer2.0.downsample")
    assert page.locator("#found").inner_text() == "3 found"  # the block and its two layers
    assert row(page, "layer2.0.downsample.0").is_visible()
    page.fill("#search", "max_pool2d")
    assert page.locator("#found").inner_text() == "1 found"
    page.keyboard.press("Escape")
    assert page.input_value("#search") == ""
    assert row(page, "layer1").is_visible()


def test_the_tree_follows_the_keys(visit: Any) -> None:
    page = visit()
    page.locator(".row").first.focus()
    for key in ["ArrowDown"] * 5 + ["ArrowRight", "ArrowRight"]:
        page.keyboard.press(key)
    assert row(page, "layer1").get_attribute("aria-expanded") == "true"
    selected = page.locator('.row[aria-selected="true"] .name')
    assert selected.get_attribute("title") == "layer1.0"
    page.keyboard.press("ArrowLeft")
    assert selected.get_attribute("title") == "layer1"
    page.keyboard.press("ArrowLeft")
    assert row(page, "layer1").get_attribute("aria-expanded") == "false"
    page.keyboard.press("End")
    assert selected.get_attribute("title") == "fc"


def background(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_page_is_light_or_dark_and_can_be_switched(visit: Any) -> None:
    light, dark = visit(color_scheme="light"), visit(color_scheme="dark")
    white, black = background(light), background(dark)
    assert (white, black) == ("rgb(255, 255, 255)", "rgb(20, 24, 29)")
    assert "dark" in dark.locator(".sheet svg").get_attribute("class")
    dark.click("#theme")
    assert background(dark) == white
    assert "light" in dark.locator(".sheet svg").get_attribute("class")
    dark.click("#theme")
    assert background(dark) == black


def test_the_page_prints_without_its_tools(visit: Any) -> None:
    page = visit(color_scheme="dark")
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("#search").is_visible()
    assert row(page, "layer1").is_visible()


def test_bars_show_shares_and_lead_to_the_tree(visit: Any) -> None:
    page = visit("googlenet_aux")
    segments = page.locator(".shares").first.locator("button")
    widths = [float(segments.nth(i).evaluate("e => parseFloat(e.style.width)")) for i in range(5)]
    assert all(0 < width < 100 for width in widths)
    page.locator('.shares button[title^="inception5b:"]').first.click()
    assert row(page, "inception5b").get_attribute("aria-selected") == "true"


def test_a_thousand_layers_are_unfolded_and_searched(visit: Any) -> None:
    page = visit("resnet1001_cifar")
    row(page, "layer2").click()
    assert row(page, "layer2.110").count() == 1
    page.fill("#search", "layer3.7")
    assert page.locator("#found").inner_text().endswith("found")
    assert row(page, "layer3.7.conv2").count() == 1


def test_the_page_of_an_invalid_spec_has_the_valid_part(visit: Any, folder: Path) -> None:
    broken = "cnngraph: 1\nname: broken\ninput: [3, 8, 8]\ngraph: [relu, rleu]\n"
    cnngraph.report_page(broken).save(folder / "broken.html")
    cnngraph.report_page("cnngraph: 1\nname: [\n").save(folder / "unreadable.html")
    page = visit("broken")
    assert "did you mean `relu`" in page.locator(".diagnostics").inner_text()
    row(page, "0").click()
    assert page.locator(".line.chosen").count() == 1
    visit("unreadable").click("#theme")
