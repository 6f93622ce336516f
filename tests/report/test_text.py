"""Reports as text and HTML, input sizes and numbers as text."""

from __future__ import annotations

import pytest
from conftest import SPECS

import cnngraph
from cnngraph.graph.input_sizes import Failure, InputSizes
from cnngraph.report.input_sizes import describe_sizes
from cnngraph.report.numbers import duration, short, size


@pytest.mark.parametrize(
    ("valid", "stride", "words"),
    [
        (range(1, 65), 8, "any (up to 64 tried), output stride 8"),
        (range(15, 65), None, "15x15 and larger (up to 64 tried)"),
        ([32], None, "32x32 only (1 to 64 tried)"),
        ([28, 29, 30, 31], 1, "28 to 31 (up to 64 tried)"),
        (
            range(16, 65, 16),
            16,
            "16, 32, 48 and so on, in steps of 16 (up to 64 tried), output stride 16",
        ),
        ([1, 3, 5, 7, 9, 12, 13], None, "1, 3, 5, 7, 9 and so on (7 in all) (up to 64 tried)"),
        ([], None, "no square input works (up to 64 tried)"),
    ],
)
def test_input_sizes_as_text(valid: list[int], stride: int | None, words: str) -> None:
    assert describe_sizes(InputSizes((1, 64), tuple(valid), stride, ()), (32, 32)) == [words]


def test_only_binding_limits_are_shown() -> None:
    failures = (
        Failure((1, 2), "pool1", "E202", "too small"),
        Failure((3, 4), "pool2", "E202", "too small"),
        Failure((6, 8), "add", "E201", "different"),
    )
    sizes = InputSizes((1, 9), (5, 7, 9), None, failures)
    assert describe_sizes(sizes, (9, 9))[1:] == [
        "below 5: pool2: too small",
        "not 6, 8: add: different",
    ]


def test_a_report_as_text() -> None:
    text = str(cnngraph.check(SPECS / "lenet.yaml"))
    assert "conv1  conv2d" in text
    assert "params  61,706 (61.7 k), 0 buffers" in text
    assert text == "\n".join(line.rstrip() for line in text.splitlines())
    wrong = cnngraph.check("cnngraph: 1\nname: n\ninput: [3]\ngraph: [relux]\n")
    assert str(wrong) == "\n\n".join(map(str, wrong.diagnostics))


def test_a_report_as_html() -> None:
    html = cnngraph.check(SPECS / "lenet.yaml")._repr_html_()
    assert ">conv1</td>" in html
    assert html.count("<tr>") == html.count("</tr>") == 14
    assert ">61,706</th>" in html


def test_html_is_escaped() -> None:
    for spec in (
        "cnngraph: 1\nname: <script>\ninput: [3]\ngraph: [relu]\n",
        "cnngraph: 1\nname: n\ninput: [3]\ngraph: ['<script>']\n",
    ):
        html = cnngraph.check(spec)._repr_html_()
        assert "<script>" not in html
        assert "&lt;script&gt;" in html


def test_numbers_have_three_digits_and_a_unit() -> None:
    assert [short(n) for n in (999, 1000, 61_706, 416_520, 1_498_376_192, 132_863_336)] == [
        "999", "1.00 k", "61.7 k", "417 k", "1.50 G", "133 M",
    ]  # fmt: skip
    assert [size(n) for n in (12, 26_499_616)] == ["12 bytes", "26.5 MB"]
    assert [duration(s) for s in (0.00341, 0.12, 1.94)] == ["3.4 ms", "120 ms", "1.9 s"]
