"""Networks that some input sizes do not fit: `check` knows at which sizes each of them runs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from hypothesis import reject
from hypothesis import strategies as st

import cnngraph

from .batches import batch
from .network_specs import text_of

LARGEST = 12
"""The largest size at which a network is run."""


@st.composite
def windows(draw: st.DrawFn, most_padding: int) -> dict[str, Any]:
    kernel = draw(st.integers(1, 5))
    return {
        "kernel_size": kernel,
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, min(most_padding, kernel // 2))),
        "dilation": draw(st.sampled_from([1, 1, 2])),
    }


@st.composite
def sized_ops(draw: st.DrawFn) -> Any:
    """An op whose result has another size than its input, or that needs an input of some size."""
    window, ceil = draw(windows(2)), {"ceil_mode": draw(st.booleans())}
    undilated = {name: value for name, value in window.items() if name != "dilation"}
    modes = st.sampled_from(["zeros", "reflect", "replicate", "circular"])
    factor = draw(st.sampled_from([2, 3]))
    options = [
        {"conv2d": {"out_channels": 4, **window, "padding_mode": draw(modes)}},
        {"conv2d": {"out_channels": 4, **window, "padding": "same"}},
        {"conv_transpose2d": {"out_channels": 4, **window, "padding": draw(st.integers(0, 3))}},
        {"max_pool2d": {**window, **ceil}},
        {"max_pool2d": {**undilated, "padding": "same"}},
        {"avg_pool2d": {**undilated, **ceil}},
        {"adaptive_avg_pool2d": draw(st.integers(1, 4))},
        {"upsample": {"scale_factor": draw(st.sampled_from([0.5, 1.5, 2]))}},
        {"pixel_unshuffle": factor},
        {"pad": {"padding": draw(st.integers(-2, 3)), "mode": "constant"}},
        {"pad": {"padding": draw(st.integers(1, 3)), "mode": draw(modes).replace("zeros", "reflect")}},
        {"crop": draw(st.integers(1, 4))},
        "instance_norm",
        {"parallel": [{"conv2d": {"out_channels": 2, **window}}, {"max_pool2d": {**undilated}}]},
        {"residual": {"body": [{"max_pool2d": factor}, {"upsample": factor}]}},
        {"parallel": {"merge": "multiply", "branches": ["identity", {"adaptive_avg_pool2d": 2}]}},
    ]  # fmt: skip
    return draw(st.sampled_from(options))


@st.composite
def sized_specs(draw: st.DrawFn) -> str:
    """A network of such ops that fits its declared input.

    None pads an empty map, which torch does, and `check` refuses.
    """
    graph = draw(st.lists(sized_ops(), min_size=1, max_size=4))
    if draw(st.integers(0, 2)) == 0:
        graph += ["flatten", {"linear": 2}]
    size = draw(st.integers(1, LARGEST))
    text = text_of({"cnngraph": 1, "name": "net", "input": [4, size, size], "graph": graph})
    fills_empty = text.count("- pad:") > 1 and "padding: -" in text
    return text if cnngraph.check(text).ok and not fills_empty else reject()


def check_sizes(text: str) -> str:
    """The network runs at the sizes that `check` says, and at no other, on both backends."""
    report = cnngraph.check(text)
    assert report.sizes is not None
    valid = [size for size in report.sizes.valid if size <= LARGEST]
    for backend in ("eager", "fused"):
        network = cnngraph.compile(text, backend=backend).eval()
        ran = [size for size in range(1, LARGEST + 1) if runs_at(network, size)]
        assert ran == valid, f"{backend} runs at {ran}, and check says {valid}"
    return "some sizes" if len(valid) < LARGEST else "all sizes"


def runs_at(network: torch.nn.Module, size: int) -> bool:
    """Whether it has a result. Torch's transposed convolutions make empty maps of small ones."""
    try:
        with torch.no_grad():
            return network(torch.zeros(2, 4, size, size)).numel() > 0
    except (RuntimeError, ValueError, IndexError):
        return False


def run(number: int) -> Counter[str]:
    return batch(check_sizes, sized_specs(), number, 50)
