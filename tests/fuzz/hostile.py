"""Specs that are written to keep `check` busy: each is answered soon, and in little memory."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable

import cnngraph
from cnngraph.report.check import summary

CPU_SECONDS = 3
"""Processor time of a check, without the start of Python: half of it where nothing else runs."""
MEGABYTES = 200

HEAD = "cnngraph: 1\nname: net\ninput: [3, 8, 8]\n"
CONV = "conv2d: {out_channels: 3, kernel_size: 1}"


def many(count: int, text: Callable[[int], str]) -> str:
    """So many items of a list or mapping in one line."""
    return ", ".join(map(text, range(count)))


def nodes(count: int, text: Callable[[int], str]) -> str:
    """A network of so many nodes."""
    return f"{HEAD}graph:\n" + "".join(f"  - {text(index)}\n" for index in range(count))


def repeated(count: int, body: str, head: str = "") -> str:
    """A network of so many copies of a node."""
    return f"{HEAD}{head}graph:\n  - repeat: {{times: {count}, body: {body}}}\n"


BLOCK = "blocks: {b: {params: {x: ~, y: 3}, body: relu}}\n"
NAMED = repeated(9000, "{relu: {name: 'r${i}'}}")
LIBRARY = "".join(f"  b{i}: {{body: rellu}}\n" for i in range(20_000))
ANCHORS = ", ".join(["*a"] * 160)

DOCUMENTS = {
    "different nodes": repeated(
        24_000,
        '{conv2d: {name: "c${i}", out_channels: "${i+1}", kernel_size: "${1}", bias: "${true}"}}',
    ),
    "different expressions": nodes(
        9000,
        lambda i: f"conv2d: {{out_channels: '${{{i} % 7 + 1}}', kernel_size: '${{1 + 0 * {i}}}'}}",
    ),
    "different tests": nodes(
        12_000, lambda i: f"when: {{test: '${{in_channels + {i} > 5}}', body: relu}}"
    ),
    "tests inside of tests": repeated(1500, "{when: {test: '${i >= 0}', body: " * 28 + "relu" + "}}" * 28),
    "projections": repeated(
        9000,
        "{residual: {body: [conv2d: {out_channels: '${i + 1}', kernel_size: 1}], shortcut: project}}",
    ),
    "unknown kinds in blocks": f"{HEAD}blocks:\n{LIBRARY}graph: [relu]\n",
    "unknown outputs": f"{NAMED}outputs: {{{many(9000, lambda i: f'o{i}: s{i}')}}}\n",
    "unknown values": NAMED + "".join(f"  - relu: {{from: s{i}}}\n" for i in range(9000)),
    "lists for numbers": repeated(
        16_000, "{b: {x: '${a}', y: '${a}'}}", f"params: {{a: '${{range(10000)}}'}}\n{BLOCK}"
    ),
    "long wrong lists": repeated(
        24_000, f"{{conv2d: {{out_channels: 3, kernel_size: [{many(9990, lambda i: '1')}]}}}}"
    ),
    "equal names": f"{HEAD}graph:\n  - conv2d: {{name: a, from: input, out_channels: 3, kernel_size: 1}}\n"
    "  - tanh: {from: input}\n  - repeat: {times: 19000, body: tanh}\n"
    + "  - conv2d: {name: a, out_channels: 3, kernel_size: 1}\n" * 9000,
    "warnings": f"{HEAD}graph: [global_avg_pool2d, {many(49_000, lambda i: 'batch_norm')}]\n",
    "a chain of shares": f"{HEAD}graph:\n  - conv2d: {{name: c0, out_channels: 3, kernel_size: 1}}\n"
    + "".join(f"  - share: {{name: c{i + 1}, of: c{i}}}\n" for i in range(14_000)),
    "shares of shares": f"{HEAD}graph:\n  - sequential: {{name: s0, body: [{CONV}]}}\n"
    + "".join(
        f"  - sequential: {{name: s{i + 1}, body: [{', '.join([f'share: s{i}'] * 3)}]}}\n"
        for i in range(12)
    ),
    "side heads": nodes(12_000, lambda i: f"aux: {{name: h{i}, body: [relu]}}") + "  - relu\n",
    "wrong figures": f"{NAMED}expect: {{nodes: {{{many(9000, lambda i: f'r{i}: {{params: 1}}')}}}}}\n",
    "figures of no node": f"{NAMED}expect: {{shapes: {{{many(9000, lambda i: f'q{i}: [3]')}}}}}\n",
    "a list of sources": f"{HEAD}graph:\n  - relu: {{from: [{many(40_000, lambda i: f'r{i}')}]}}\n",
    "long joins": repeated(500, "{relu: {name: 'r${i}'}}")
    + f"  - repeat: {{times: 500, body: {{add: [{many(500, lambda i: f'r{i}')}]}}}}\n",
    "repeats of repeats": f"{HEAD}graph:\n  - {'{repeat: {times: 6, body: ' * 6}relu{'}}' * 6}\n",
    "blocks that double": HEAD
    + "blocks:\n"
    + "".join(f"  b{i}: {{body: [b{i + 1}, b{i + 1}]}}\n" for i in range(40))
    + "  b40: {body: relu}\ngraph: [b0]\n",
    "long texts in params": f"{HEAD}params: {{{many(999, lambda i: f'p{i}: ' + 'x' * 900)}}}\n"
    "graph: [relu]\n",
    "params that double": f"{HEAD}params: {{p0: [1, 2], "
    + many(900, lambda i: f"p{i + 1}: '${{p{i} + p{i}}}'")
    + "}\ngraph: [relu]\n",
    "params of mappings": f"{HEAD}params: {{{many(900, lambda i: f'p{i}: {{a: {{b: [1]}}}}')}}}\n"
    "graph: [relu]\n",
    "aliases": f"{HEAD}blocks: {{b: {{body: &a [{many(300, lambda i: 'relu')}]}}}}\n"
    f"graph: [{ANCHORS}]\n",
    "aliases of aliases": HEAD
    + "x: &a0 [relu, relu, relu]\n"
    + "".join(f"x{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
    + "graph: *a9\n",
    "names of accents": nodes(15_000, lambda i: f"relu: {{name: é{i}ü}}"),
    "names of ligatures": nodes(15_000, lambda i: f"relu: {{name: \ufdfa\ufdfa{i}}}"),
    "one long word": f"{HEAD}graph: ['{chr(0x1F600) * 240_000}']\n",
}  # fmt: skip


def run(number: int) -> Counter[str]:
    """Checks a document, and prints its report."""
    name = [*DOCUMENTS][number % len(DOCUMENTS)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    report = cnngraph.check(DOCUMENTS[name])
    text = summary(report) if report.ok else str(report)
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert text, name
    assert seconds < CPU_SECONDS, f"{name}: {seconds:.1f} s"
    assert (after.ru_maxrss - before.ru_maxrss) / 1024 < MEGABYTES, name
    return Counter([name])
