"""The input sizes a network is said to accept, held against running it at each of them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from conftest import ROOT, SPECS
from fuzz.sizes import check_sizes, sized_specs
from hypothesis import HealthCheck, given, settings

import cnngraph
from cnngraph.graph.input_sizes import LARGEST, InputSizes, runs


def spec(body: str, input: str) -> str:
    nodes = textwrap.indent(textwrap.dedent(body).strip(), "  ")
    return f"cnngraph: 1\nname: net\ninput: {input}\ngraph:\n{nodes}\n"


def sizes_of(text: str) -> InputSizes:
    report = cnngraph.check(text)
    assert report.ok, "\n".join(map(str, report.diagnostics))
    assert report.sizes is not None
    return report.sizes


NETWORKS = {
    "odd sizes fail in a concat": (
        """
        - parallel:
            name: mixed
            branches:
              down: [conv2d: {out_channels: 2, kernel_size: 2, stride: 2}]
              pooled: [max_pool2d: {kernel_size: 2, stride: 2, ceil_mode: true}]
        """,
        "[2, 8, 8]",
    ),
    "a linear after flatten": (
        """
        - conv2d: {name: conv, out_channels: 2, kernel_size: 3, stride: 2, padding: 1}
        - max_pool2d: 2
        - flatten
        - linear: {name: fc, out_features: 3}
        """,
        "[2, 16, 16]",
    ),
    "fully convolutional": (
        """
        - conv2d: {name: a, out_channels: 3, kernel_size: 5, stride: 2}
        - batch_norm: {name: bn}
        - relu
        - max_pool2d: {kernel_size: 3, stride: 2, ceil_mode: true}
        - conv2d: {name: b, out_channels: 3, kernel_size: 1}
        """,
        "[2, 24, 24]",
    ),
    "an encoder and a decoder": (
        """
        - conv2d: {name: down, out_channels: 3, kernel_size: 3, padding: 1}
        - max_pool2d: 2
        - conv2d: {name: deep, out_channels: 3, kernel_size: 3, padding: 1}
        - max_pool2d: 2
        - upsample: 4
        - concat: {name: skip, with: down}
        """,
        "[2, 16, 16]",
    ),
    "a residual that crops": (
        """
        - residual:
            body: [conv2d: {out_channels: 2, kernel_size: 3}, pad: 1]
        - pad: {padding: 3, mode: reflect}
        - avg_pool2d: {kernel_size: 4, stride: 3, padding: 2}
        """,
        "[2, 16, 16]",
    ),
    "pixels and channels": (
        """
        - pixel_unshuffle: 3
        - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1}
        - global_avg_pool2d
        - flatten
        - linear: 2
        """,
        "[1, 12, 12]",
    ),
    "a gate": (
        """
        - conv2d: {name: conv, out_channels: 4, kernel_size: 4, stride: 4}
        - parallel:
            name: gate
            merge: multiply
            branches: [identity, [adaptive_avg_pool2d: 2, sigmoid]]
        """,
        "[2, 8, 8]",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_are_those_at_which_the_network_runs(name: str) -> None:
    """Runs the eager network at every size of the range, and says where both must agree."""
    body, input = NETWORKS[name]
    text = spec(body, input)
    found = sizes_of(text)
    network = cnngraph.compile(text, backend="eager").eval()
    channels = cnngraph.check(text).graph.input.channels  # pyright: ignore[reportOptionalMemberAccess]
    first, last = found.range
    assert (first, last) == (1, 64)
    ran = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for size in range(first, last + 1):
            try:
                network(torch.zeros(2, channels, size, size))
            except (RuntimeError, ValueError):
                continue
            ran.append(size)
    assert list(found.valid) == ran
    assert 0 < len(ran) < last, "the network must have sizes of both kinds"
    assert found.least == ran[0]
    declared = int(input.strip("[]").split(",")[1])
    assert declared in ran
    failed = sorted(size for failure in found.failures for size in failure.sizes)
    assert failed == [size for size in range(first, last + 1) if size not in ran]


@settings(deadline=None, max_examples=25, derandomize=True, suppress_health_check=[*HealthCheck])
@given(sized_specs())
def test_small_sizes_are_those_at_which_any_network_runs(text: str) -> None:
    check_sizes(text)


def failures(name: str) -> list[tuple[str, tuple[int, ...], str]]:
    found = sizes_of(spec(*NETWORKS[name]))
    return [(failure.path, failure.sizes, failure.reason) for failure in found.failures]


def test_reasons_name_the_node_that_fails_first() -> None:
    odd = tuple(range(3, 65, 2))
    assert failures("odd sizes fail in a concat") == [
        (
            "mixed.down.0",
            (1,),
            "the input of conv2d is too small: a 2x2 window does not fit into 2x1x1",
        ),
        (
            "mixed",
            odd,
            "only the channels of a concat may differ, but it gets 2x1x1 and 2x2x2",
        ),
    ]
    *_, (path, sizes, reason) = failures("a linear after flatten")
    assert (path, sizes) == ("fc", (*range(3, 15), *range(19, 65)))
    assert reason == "the weights of linear would need another shape for an input of 2"
    assert failures("fully convolutional") == [
        (
            "a",
            (1, 2, 3, 4),
            "the input of conv2d is too small: a 5x5 window does not fit into 2x1x1",
        ),
        ("3", (5, 6), "the input of max_pool2d is too small: a 3x3 window does not fit into 3x1x1"),
    ]


@pytest.mark.parametrize(
    ("name", "valid", "stride"),
    [
        ("odd sizes fail in a concat", [(size, size) for size in range(2, 65, 2)], 2),
        ("a linear after flatten", [(15, 18)], 4),
        ("fully convolutional", [(7, 64)], 4),
        ("an encoder and a decoder", [(size, size) for size in range(4, 65, 4)], 1),
        ("pixels and channels", [(size, size) for size in range(3, 65, 3)], 3),
    ],
)
def test_runs_and_strides(name: str, valid: list[tuple[int, int]], stride: int) -> None:
    found = sizes_of(spec(*NETWORKS[name]))
    assert list(found.runs) == valid
    assert found.stride == stride


@pytest.mark.parametrize(
    ("path", "stride"),
    {"resnet18": 32, "lenet": 4, "vgg11": 32, "densenet121": 32, "googlenet": 32}.items(),
)
def test_strides_of_shipped_networks(path: str, stride: int) -> None:
    report = cnngraph.check(SPECS / f"{path}.yaml")
    assert report.graph is not None
    assert report.sizes is not None
    assert report.sizes.stride == stride
    assert report.graph.input.spatial[0] in report.sizes.valid


def test_lenet_takes_a_few_sizes_and_resnet_nearly_all() -> None:
    lenet, resnet = (cnngraph.check(SPECS / f"{name}.yaml").sizes for name in ("lenet", "resnet18"))
    assert lenet is not None
    assert resnet is not None
    assert lenet.runs == ((28, 31),)
    assert resnet.runs == ((1, 448),)


def test_nothing_grows_without_a_stride() -> None:
    assert sizes_of(spec("- global_avg_pool2d\n- flatten\n- linear: 2", "[2, 8, 8]")).stride is None
    flat = sizes_of(
        spec("- adaptive_avg_pool2d: 3\n- conv2d: {out_channels: 1, kernel_size: 3}", "[2, 8, 8]")
    )
    assert (flat.stride, flat.least, flat.failures) == (None, 1, ())
    fixed = sizes_of(spec("- upsample: {size: 4}\n- relu", "[2, 8, 8]"))
    assert (fixed.stride, fixed.runs) == (None, ((1, 64),))


def test_concat_after_a_failure_reports_one_error() -> None:
    """Where a branch failed, nothing after it is blamed."""
    body = """
        - parallel: [conv2d: {name: a, out_channels: 1, kernel_size: 9}, conv2d: {name: b, out_channels: 1, kernel_size: 9}]
        - conv2d: {name: c, out_channels: 1, kernel_size: 5}
    """
    found = sizes_of(spec(body, "[1, 32, 32]"))
    assert [(f.path, f.sizes) for f in found.failures] == [
        ("0.a", tuple(range(1, 9))), ("c", (9, 10, 11, 12)),
    ]  # fmt: skip


def test_flat_inputs_have_no_sizes() -> None:
    report = cnngraph.check(spec("- linear: 4\n- relu", "[16]"))
    assert report.ok
    assert report.sizes is None


@pytest.mark.parametrize(
    ("size", "last"),
    [("[1, 8, 8]", 64), ("[1, 40, 8]", 80), ("[1, 8, 224]", 448), ("[1, 700, 700]", LARGEST)],
)
def test_twice_the_declared_size_is_tried_up_to_a_cap(size: str, last: int) -> None:
    assert sizes_of(spec("- relu", size)).range == (1, last)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((), []),
        ((5,), [(5, 5)]),
        ((1, 2, 3), [(1, 3)]),
        ((1, 3, 4, 9, 10, 12), [(1, 1), (3, 4), (9, 10), (12, 12)]),
    ],
)
def test_runs_of_consecutive_sizes(sizes: tuple[int, ...], expected: list) -> None:
    assert list(runs(sizes)) == expected


LARGE = {
    "wide": spec("- relu\n- max_pool2d: 2\n- conv2d: {out_channels: 2, kernel_size: 3}", "[1, 40000, 40000]"),
    "deep": spec("- repeat: {times: 12000, body: [relu, tanh]}", "[4, 224, 224]"),
    "deep and wide": spec(
        "- repeat: {times: 10000, body: [conv2d: {out_channels: 4, kernel_size: 3, padding: 1}, "
        "relu]}",
        "[4, 9000, 9000]",
    ),
    "branched": spec(
        """
        - conv2d: {name: stem, out_channels: 4, kernel_size: 3, stride: 2, padding: 1}
        - repeat:
            times: 4000
            body: [residual: {body: [conv2d: {out_channels: 4, kernel_size: 3, padding: 1}]}]
        """,
        "[4, 224, 224]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_input_sizes_of_large_networks(name: str, tmp_path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(LARGE[name])
    script = (
        "import sys, cnngraph; report = cnngraph.check(sys.argv[1]); print(report.ok, "
        "report.sizes.range[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    ok, last = run.stdout.split()
    assert ok == "True"
    assert 64 <= int(last) <= LARGEST


def test_copies_of_a_repeat_are_evaluated_once(monkeypatch) -> None:
    """Else a network of 20,000 nodes would take minutes: what equal ops make of equal sizes is
    known."""
    from cnngraph.ops.conv import Conv2d

    seen: list[object] = []
    infer = Conv2d.infer
    monkeypatch.setattr(
        Conv2d, "infer", lambda self, *shapes: seen.append(0) or infer(self, *shapes)
    )
    conv = "conv2d: {out_channels: 4, kernel_size: 3, padding: 1}"
    counts = []
    for times in (2, 50):
        seen.clear()
        sizes_of(spec(f"- repeat: {{times: {times}, body: [{conv}, relu]}}", "[4, 8, 8]"))
        counts.append(len(seen))
    assert 64 <= counts[0] == counts[1]


def test_equal_failures_of_copies_are_reported_once() -> None:
    found = sizes_of(spec("- repeat: {times: 3, body: [max_pool2d: 2]}", "[1, 64, 64]"))
    assert [(f.path, f.sizes) for f in found.failures] == [
        ("0", (1,)), ("1", (2, 3)), ("2", (4, 5, 6, 7)),
    ]  # fmt: skip
    same = sizes_of(spec("- parallel: [max_pool2d: 2, max_pool2d: 2]", "[1, 64, 64]"))
    assert [(f.path, f.sizes) for f in same.failures] == [("0.0", (1,))]
