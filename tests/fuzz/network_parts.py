"""Strategies of parts of networks. They keep the size of their map, so they fit in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

FUSABLE = [
    "relu", "relu6", "leaky_relu", "elu", "gelu", {"gelu": {"approximate": "tanh"}}, "silu", "mish",
    "sigmoid", "tanh", "hardswish", "hardsigmoid", {"hardtanh": {"min_val": -0.5, "max_val": 0.75}},
    {"leaky_relu": 0.3}, {"elu": {"alpha": 0.5}},
]  # fmt: skip
ACTIVATIONS = st.sampled_from([*FUSABLE, "prelu", "selu", "softplus", "identity"])

BATCH_NORMS = st.one_of(
    st.just("batch_norm"),
    st.fixed_dictionaries(
        {
            "batch_norm": st.fixed_dictionaries(
                {},
                optional={
                    "eps": st.sampled_from([1e-3, 0.1]),
                    "momentum": st.sampled_from([None, 0.0, 0.5, 1.0]),
                    "affine": st.booleans(),
                    "track_running_stats": st.booleans(),
                },
            )
        }
    ),
)
OTHER_OPS = st.sampled_from(
    ["layer_norm", {"group_norm": 1}, {"instance_norm": {"affine": True}}, {"layer_scale": 0.5},
     {"scale": 0.5}, {"dropout": 0.0}, "softmax", {"slice": {"end": "${in_channels}"}},
     {"chunk": {"chunks": 1, "index": 0}}]
)  # fmt: skip
OTHER_OPS_ON_MAPS = st.sampled_from(
    [{"linear2d": 3}, "global_response_norm", {"local_response_norm": 2}, {"channel_shuffle": 1},
     {"upsample": {"scale_factor": 1, "mode": "bilinear"}}, {"pad": 0}, "channel_mean",
     {"parallel": ["channel_mean", "channel_max"]},
     {"conv_transpose2d": {"out_channels": 2, "kernel_size": 3, "padding": 1}}]
)  # fmt: skip
INITIAL = st.sampled_from(
    [{"normal": {"std": 0.2}}, "xavier_uniform", {"weight": "kaiming_normal"},
     {"weight": {"truncated_normal": {"std": 0.1}}, "bias": "ones"}]
)  # fmt: skip

DEPTH = 2
"""How deep composites may lie in each other."""


@dataclass(frozen=True)
class Parts:
    """Strategies of parts that keep the size of their map.

    Attributes:
        rank: 1 for signals, 2 for maps, 3 for volumes.
        values: names of earlier values of the same size, which a concatenation may read.
        blocks: names of the document's blocks.
    """

    rank: int
    values: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()

    def conv(self, channels: int | str | None = None, stride: int = 1) -> st.SearchStrategy[Any]:
        """Convolutions with `channels`, any number if None."""
        return st.composite(self._conv)(channels, stride)

    def _conv(self, draw: st.DrawFn, channels: int | str | None, stride: int) -> dict[str, Any]:
        kernel, dilation = draw(st.sampled_from([(1, 1), (3, 1), (3, 1), (3, 2), (5, 1)]))
        arguments: dict[str, Any] = {
            "out_channels": channels or draw(st.integers(1, 5)),
            "kernel_size": kernel,
            "padding": kernel // 2 * dilation,
            "stride": stride,
            "bias": draw(st.booleans()),
        }
        if dilation > 1:
            arguments["dilation"] = dilation
        elif kernel == 3:
            modes = ["zeros", "zeros", "zeros", "reflect", "replicate", "circular"]
            arguments["padding_mode"] = draw(st.sampled_from(modes))
        if channels == "${in_channels}" and draw(st.booleans()):
            arguments["groups"] = channels
        if stride == 1 and draw(st.integers(0, 7)) == 0:
            arguments |= {"padding": "same", "padding_mode": "zeros"}
        if self.rank == 2 and kernel == 3 and draw(st.integers(0, 7)) == 0:
            arguments |= {"kernel_size": [3, 1], "padding": [dilation, 0]}
            arguments |= {"padding_mode": "zeros"}
        if draw(st.integers(0, 7)) == 0:
            arguments["init"] = draw(INITIAL.filter(lambda scheme: "bias" not in scheme))
        return {f"conv{self.rank}d": arguments}

    def pool(self) -> st.SearchStrategy[Any]:
        same = {"kernel_size": 3, "stride": 1, "padding": 1}
        kinds = [f"max_pool{self.rank}d", f"avg_pool{self.rank}d"]
        return st.sampled_from([{kind: same} for kind in kinds])

    def ops(self) -> st.SearchStrategy[Any]:
        others = OTHER_OPS | OTHER_OPS_ON_MAPS if self.rank == 2 else OTHER_OPS
        usual = [BATCH_NORMS, ACTIVATIONS, self.pool(), self.conv(), self.conv("${in_channels}")]
        return st.one_of(*usual, others)

    def units(self, channels: int | str | None = None) -> st.SearchStrategy[list[Any]]:
        """Runs of ops; with `channels`, they end with that many."""
        pairs = st.tuples(BATCH_NORMS, ACTIVATIONS).map(list)
        runs = st.lists(st.one_of(self.ops(), pairs), max_size=3)
        ends = st.lists(st.one_of(BATCH_NORMS, ACTIVATIONS), max_size=2)
        if channels is None:
            return st.tuples(runs, ends).map(lambda parts: [*parts[0], *parts[1]] or ["relu"])
        return st.tuples(runs, self.conv(channels), ends).map(lambda p: [*p[0], p[1], *p[2]])

    def bodies(self, depth: int = DEPTH) -> st.SearchStrategy[list[Any]]:
        if depth == 0:
            return self.units()
        return st.lists(st.one_of(self.units(), self.composites(depth)), min_size=1, max_size=2)

    def composites(self, depth: int = DEPTH) -> st.SearchStrategy[Any]:
        return st.composite(self._composite)(depth)

    def _composite(self, draw: st.DrawFn, depth: int) -> Any:
        kinds = ["list", "sequential", "concat", "add", "gate", "residual", "project", "dense",
                 "repeat", "when"]  # fmt: skip
        kind = draw(st.sampled_from([*kinds, *["join"] * bool(self.values), *self.blocks]))
        inner = self.bodies(depth - 1)
        if kind in self.blocks:
            return {kind: draw(st.integers(1, 4))}
        match kind:
            case "list":
                return draw(inner)
            case "sequential":
                return {"sequential": draw(inner)}
            case "concat":
                branches = draw(st.lists(inner, min_size=1, max_size=3))
                if draw(st.booleans()):
                    return {"parallel": {f"b{index}": body for index, body in enumerate(branches)}}
                return {"parallel": branches}
            case "add":
                channels = draw(st.integers(1, 4))
                branches = draw(st.lists(self.units(channels), min_size=2, max_size=3))
                return {"parallel": {"merge": "add", "branches": branches}}
            case "gate":
                return {"parallel": {"merge": "multiply", "branches": ["identity", self._gate()]}}
            case "residual":
                keep = st.one_of(BATCH_NORMS, ACTIVATIONS, self.conv("${in_channels}"))
                body = draw(st.lists(keep, min_size=1, max_size=4))
                return {"residual": {"body": body, "scale": draw(st.sampled_from([1.0, 0.5]))}}
            case "project":
                body = draw(self.units(draw(st.integers(1, 4))))
                return {"residual": {"body": body, "shortcut": "project"}}
            case "dense":
                body = draw(self.units(draw(st.integers(1, 3))))
                return {"dense": {"layers": draw(st.integers(1, 3)), "body": body}}
            case "when":
                test = draw(st.sampled_from(["${in_channels > 2}", True, False]))
                return {"when": {"test": test, "body": draw(inner)}}
            case "join":
                return {"concat": draw(joined(self.values))}
            case _:
                return {"repeat": {"times": draw(st.integers(0, 3)), "body": draw(inner)}}

    def _gate(self) -> list[Any]:
        conv = {"out_channels": "${in_channels}", "kernel_size": 1}
        return [f"global_avg_pool{self.rank}d", {f"conv{self.rank}d": conv}, "sigmoid"]

    def head(self, features: int = 3) -> list[Any]:
        return [f"global_avg_pool{self.rank}d", "flatten", {"linear": features}]


@st.composite
def joined(draw: st.DrawFn, names: tuple[str, ...]) -> list[str]:
    """The `with` of a join: one or two of the names, and `.` or not, in any order."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
    return draw(st.permutations([*chosen, *draw(st.sampled_from([[], ["."]]))]))


@st.composite
def initial(draw: st.DrawFn, rank: int) -> dict[str, Any]:
    """The `init` of a document."""
    schemes = draw(st.dictionaries(st.sampled_from([f"conv{rank}d", "linear"]), INITIAL))
    return schemes | {"zero_last_norm": draw(st.booleans())}
