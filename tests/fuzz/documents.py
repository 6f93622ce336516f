"""Texts and data in the place of specs: `check` answers with a report, in little time."""

from __future__ import annotations

import resource
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

import cnngraph

from .batches import batch

CPU_SECONDS = 10
"""A check of a small spec takes milliseconds of processor time; this is three orders above."""

SMALL = """\
cnngraph: 1
name: net
input: [3, 16, 16]
params: {width: 4, act: relu, depths: [1, 2]}
blocks:
  unit:
    params: {width: ~, stride: 1}
    body:
      - conv2d: {name: conv, out_channels: "${width}", kernel_size: 3, stride: "${stride}", padding: 1}
      - batch_norm: {name: bn}
      - ${act}
graph:
  - unit: {name: stem, width: "${width}"}
  - repeat:
      over: ${depths}
      as: depth
      index: stage
      body:
        repeat:
          name: layer${stage}
          times: ${depth}
          body:
            - residual:
                name: block${i}
                body: [unit: {name: a, width: "${width * 2 ** stage}", stride: "${2 if i == 0 else 1}"}]
                shortcut: project
  - aux: {name: side, body: [global_avg_pool2d, flatten, linear: 2]}
  - parallel: {name: gate, merge: multiply, branches: [identity, [global_avg_pool2d, sigmoid]]}
  - dense: {name: dense, layers: 2, body: [conv2d: {name: "c${i}", out_channels: 2, kernel_size: 1}]}
  - concat: {name: join, with: dense}
  - flatten
  - linear: 10
expect: {shapes: {stem: [4, 16, 16]}}
"""

SNIPPETS = st.sampled_from(
    ["${", "}", "[", "]", "{", ": ", "- ", "~", "&a ", "*a", "!!python/object:os.system ", "\t", "\x00",
     "'", '"', "\n", "#", "|", ">", "%", "999999999", "-1", "1e999", ".nan", "0x10", "${in_channels}",
     "${10 ** 10 ** "
     "10}", "${'a' * 10000000}", "${[0] * 9}", "${range(10**9)}", "null", "name", "é", "\U0001f600", "<<: ",
     "${width", "${(((((1)))))}", "with: stem", "../../etc", "\u2028", "\ufeff", "---\n"]
)  # fmt: skip


@st.composite
def damages(draw: st.DrawFn, text: str) -> str:
    """The text after a few deletions, duplications, swaps and insertions, of characters or of
    lines."""
    for _ in range(draw(st.integers(1, 3))):
        by_line = draw(st.booleans())
        items = text.splitlines(keepends=True) if by_line else list(text)
        if not items:
            break
        here = draw(st.integers(0, len(items) - 1))
        there = min(len(items), here + draw(st.integers(1, 4)))
        match draw(st.sampled_from(["delete", "duplicate", "swap", "insert", "indent"])):
            case "delete":
                del items[here:there]
            case "duplicate":
                items[here:here] = items[here:there]
            case "swap":
                other = draw(st.integers(0, len(items) - 1))
                items[here], items[other] = items[other], items[here]
            case "insert":
                items.insert(here, draw(SNIPPETS))
            case "indent":
                items.insert(here, " " * draw(st.integers(1, 4)))
        text = "".join(items)
    return text


def check_within_reason(text: str) -> None:
    """Checks a text, whatever it is; the limit stops it where it would never end."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    report = cnngraph.check(text + "\n")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
    if report.ok:
        assert report.spec is not None
        assert report.graph is not None or report.spec.is_library
    else:
        assert report.diagnostics
    for diagnostic in report.diagnostics:
        assert str(diagnostic).startswith(("error[", "warning["))
        diagnostic.to_dict()
    assert used < CPU_SECONDS


WORDS = ["conv2d", "relu", "batch_norm", "residual", "parallel", "repeat", "dense", "aux", "concat", "linear",
         "flatten", "sequential", "name", "body", "with", "times", "over", "as", "layers", "out_channels", "kernel_size",
         "branches", "merge", "shortcut", "project", "scale", "index", "stride", "padding", "${i}", "${in_channels}", "a"]  # fmt: skip
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70000),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=5),
)
ANY_NODES = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=25,
)


def documents_of(graph: Any, block: Any) -> str:
    document = {
        "cnngraph": 1, "name": "net", "input": [4, 8, 8],
        "blocks": {"a": {"body": block}}, "graph": [graph, "a", graph],
    }  # fmt: skip
    return yaml.safe_dump(document, allow_unicode=True)


ATOMS = st.one_of(
    st.integers(-(10**6), 10**30).map(str),
    st.sampled_from(
        [
            "x",
            "in_channels",
            "i",
            "'a'",
            '"b"',
            "[]",
            "[1, 2]",
            "True",
            "None",
            "1.5",
            "1e308",
            "()",
        ]
    ),
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(
            inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<", "==", "and", "or", "in", "if", "else", "is", "<<", "@", "."]), inner
        ).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-{text}"),
        st.tuples(st.sampled_from(["min", "max", "round", "int", "len", "range", "abs", "x"]), inner)
        .map(lambda parts: f"{parts[0]}({parts[1]})"),
        st.tuples(inner, inner).map(lambda parts: f"{parts[0]}[{parts[1]}]"),
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    ),
    max_leaves=12,
)  # fmt: skip


def spec_with(expression: str) -> str:
    document = {
        "cnngraph": 1, "name": "net", "input": [4, 8, 8], "params": {"x": 3, "y": f"${{{expression}}}"},
        "graph": [{"conv2d": {"out_channels": f"${{{expression}}}", "kernel_size": 1}}],
    }  # fmt: skip
    return yaml.safe_dump(document, allow_unicode=True)


def check_bytes(data: bytes) -> None:
    """Checks a file with these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.yaml"
        path.write_bytes(data)
        report = cnngraph.check(path)
        assert report.ok or report.diagnostics
        str(report)


SHIPPED = sorted(path.read_text() for path in (Path(__file__).parents[2] / "specs").rglob("*.yaml"))
KINDS: tuple[tuple[Any, st.SearchStrategy[Any]], ...] = (
    (check_within_reason, damages(SMALL)),
    (check_within_reason, st.sampled_from(SHIPPED).flatmap(damages)),
    (check_within_reason, st.text(max_size=200)),
    (check_within_reason, st.builds(documents_of, ANY_NODES, ANY_NODES)),
    (check_within_reason, EXPRESSIONS.map(spec_with)),
    (check_bytes, st.binary(max_size=200)),
    (
        check_bytes,
        st.builds(
            lambda head, tail: SMALL.encode() + head + tail,
            st.binary(max_size=20),
            st.binary(max_size=20),
        ),
    ),
)


def run(number: int) -> Counter[str]:
    return batch(*KINDS[number % len(KINDS)], number, 100)
