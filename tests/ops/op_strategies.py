"""For every op, a hypothesis strategy of (settings as a spec gives them, shape of the input)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from cnngraph.shape import TensorShape

Case = tuple[dict[str, Any], TensorShape]

SETTINGS: dict[str, SearchStrategy[Case]] = {}
"""Op kind -> its cases."""

booleans = st.booleans()
fractions = st.floats(0, 1)
numbers = st.floats(-4, 4)
positive = st.floats(1e-6, 4)


def whole(least: int, most: int) -> SearchStrategy[int]:
    return st.integers(least, most)


def pair(item: SearchStrategy[Any], rank: int = 2) -> SearchStrategy[Any]:
    """One item, or one for each dimension, such as height and width."""
    return st.one_of(item, st.tuples(*[item] * rank))


CHANNELS = whole(1, 6)


def maps(
    channels: SearchStrategy[int] = CHANNELS, size: int = 12, rank: int = 2
) -> SearchStrategy[TensorShape]:
    return st.builds(TensorShape, st.tuples(channels, *[whole(1, size)] * rank))


every_rank = st.one_of(maps(rank=1), maps(), maps(rank=3, size=5))
flat = st.builds(TensorShape, st.tuples(whole(1, 12)))
any_shape = st.one_of(maps(), flat)


def cases(
    shapes: SearchStrategy[TensorShape], **fields: SearchStrategy[Any]
) -> SearchStrategy[Case]:
    """Each field is given or left to its default, but those whose name ends in `_` (dropped) are
    always given."""
    required = {name[:-1]: values for name, values in fields.items() if name.endswith("_")}
    optional = {name: values for name, values in fields.items() if not name.endswith("_")}
    return st.tuples(st.fixed_dictionaries(required, optional=optional), shapes)


def composite(kind: str) -> Callable[[Callable[[DrawFn], Case]], None]:
    """Registers the strategy of an op whose settings depend on one another."""

    def decorate(draw_case: Callable[[DrawFn], Case]) -> None:
        SETTINGS[kind] = st.composite(draw_case)()

    return decorate


def multiple(draw: DrawFn, of: int) -> int:
    """Mostly a multiple of `of`, at times any number."""
    return draw(st.one_of(st.sampled_from([of, 2 * of, 3 * of]), whole(1, 9)))


GROUPS = st.sampled_from([1, 1, 1, 2, 3])


def convolution(draw: DrawFn, rank: int) -> Case:
    groups = draw(GROUPS)
    shape = draw(maps(st.just(multiple(draw, groups)), size=12 if rank < 3 else 6, rank=rank))
    padding = st.one_of(pair(whole(0, 4), rank), st.sampled_from(["same", "valid"]))
    settings, _ = draw(
        cases(
            st.just(shape), out_channels_=st.just(multiple(draw, groups)),
            kernel_size_=pair(whole(1, 5), rank), stride=pair(whole(1, 3), rank), padding=padding,
            dilation=pair(whole(1, 3), rank), bias=booleans,
            padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
        )
    )  # fmt: skip
    return {"groups": groups, **settings}, shape


def transposed_convolution(draw: DrawFn, rank: int) -> Case:
    groups = draw(GROUPS)
    shape = draw(maps(st.just(multiple(draw, groups)), size=6 if rank < 3 else 4, rank=rank))
    settings, _ = draw(
        cases(
            st.just(shape), out_channels_=st.just(multiple(draw, groups)),
            kernel_size_=pair(whole(1, 4), rank), stride=pair(whole(1, 3), rank),
            padding=pair(whole(0, 3), rank), output_padding=pair(whole(0, 2), rank),
            dilation=pair(whole(1, 3), rank), bias=booleans,
        )
    )  # fmt: skip
    return {"groups": groups, **settings}, shape


def pooling(
    rank: int, shapes: SearchStrategy[TensorShape], **fields: SearchStrategy[Any]
) -> SearchStrategy[Case]:
    fields["kernel_size_"] = pair(whole(1, 5), rank)
    fields["stride"] = st.one_of(st.none(), pair(whole(1, 4), rank))
    numbers = cases(shapes, **fields, padding=pair(whole(0, 2), rank), ceil_mode=booleans)
    return st.one_of(numbers, cases(shapes, **fields, padding_=st.just("same")))


def output_size(rank: int) -> SearchStrategy[Any]:
    many = st.tuples(*[st.one_of(st.none(), whole(1, 9))] * rank)
    return whole(1, 9) if rank == 1 else st.one_of(whole(1, 9), many)


for rank in (1, 2, 3):
    shapes = maps(rank=rank, size=12 if rank < 3 else 6)
    average: dict[str, SearchStrategy[Any]] = {"count_include_pad": booleans}
    if rank > 1:
        average["divisor_override"] = st.one_of(st.none(), whole(1, 5))
    SETTINGS.update({
        f"conv{rank}d": st.composite(convolution)(rank),
        f"conv_transpose{rank}d": st.composite(transposed_convolution)(rank),
        f"max_pool{rank}d": pooling(rank, shapes, dilation=pair(whole(1, 3), rank)),
        f"avg_pool{rank}d": pooling(rank, shapes, **average),
        f"adaptive_avg_pool{rank}d": cases(shapes, output_size_=output_size(rank)),
        f"adaptive_max_pool{rank}d": cases(shapes, output_size_=output_size(rank)),
        f"global_avg_pool{rank}d": cases(shapes),
        f"global_max_pool{rank}d": cases(shapes),
        f"dropout{rank}d": cases(shapes, p=fractions),
    })  # fmt: skip

running = {
    "eps": positive,
    "momentum": st.one_of(st.none(), fractions),
    "affine": booleans,
    "track_running_stats": booleans,
}


@composite("split")
def _(draw: DrawFn) -> Case:
    parts = draw(st.lists(whole(1, 4), min_size=1, max_size=3))
    shape = draw(maps(st.just(sum(parts) + draw(st.sampled_from([0, 0, 1])))))
    return {"split_size": tuple(parts), "index": draw(whole(0, len(parts) - 1))}, shape


@composite("slice")
def _(draw: DrawFn) -> Case:
    shape = draw(any_shape)
    bound = whole(-shape.channels, shape.channels)
    return draw(st.fixed_dictionaries({}, optional={"start": bound, "end": bound})), shape


@composite("unflatten")
def _(draw: DrawFn) -> Case:
    parts = draw(st.lists(whole(1, 3), min_size=1, max_size=4))
    channels = 1
    for part in parts:
        channels *= part
    shape = draw(st.builds(TensorShape, st.tuples(st.just(channels))))
    return {"unflattened_size": tuple(parts)}, shape


@composite("permute")
def _(draw: DrawFn) -> Case:
    return {"dims": (0, *draw(st.permutations([1, 2, 3])))}, draw(maps())


@composite("group_softmax")
def _(draw: DrawFn) -> Case:
    groups = draw(whole(1, 4))
    return {"groups": groups}, draw(maps(st.just(multiple(draw, groups))))


@composite("crop")
def _(draw: DrawFn) -> Case:
    return {"size": draw(pair(whole(1, 9)))}, draw(maps())


@composite("group_norm")
def _(draw: DrawFn) -> Case:
    groups = draw(whole(1, 4))
    channels = multiple(draw, groups)
    settings, shape = draw(
        cases(
            st.one_of(maps(st.just(channels)), st.just(TensorShape((channels,)))),
            eps=positive,
            affine=booleans,
        )
    )
    return {"num_groups": groups, **settings}, shape


@composite("prelu")
def _(draw: DrawFn) -> Case:
    settings, shape = draw(cases(any_shape, init=numbers))
    slopes = draw(st.sampled_from([None, 1, 2, shape.channels]))
    return settings | ({} if slopes is None else {"num_parameters": slopes}), shape


@composite("normalize")
def _(draw: DrawFn) -> Case:
    shape = draw(maps())
    count = shape.channels
    if count > 1 and draw(booleans):
        count += 1  # torch refuses it, unless either is 1 and so is repeated
    mean = draw(st.tuples(*[numbers] * count))
    return {"mean": mean, "std": draw(st.tuples(*[positive] * count))}, shape


@composite("pad")
def _(draw: DrawFn) -> Case:
    mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    size = whole(-3 if mode == "constant" else 0, 6)
    padding = draw(st.one_of(size, st.tuples(size, size, size, size)))
    settings = {"padding": padding, "mode": mode}
    return settings | ({"value": draw(numbers)} if mode == "constant" else {}), draw(maps(size=8))


@composite("upsample")
def _(draw: DrawFn) -> Case:
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]))
    target = draw(
        st.one_of(
            st.fixed_dictionaries(
                {"scale_factor": pair(st.one_of(whole(1, 4), st.floats(0.05, 4)))}
            ),
            st.fixed_dictionaries({"size": pair(whole(1, 20))}),
        )
    )
    if mode in ("bilinear", "bicubic"):
        target |= draw(st.fixed_dictionaries({}, optional={"align_corners": booleans}))
    return {"mode": mode, **target}, draw(maps())


@composite("pixel_shuffle")
def _(draw: DrawFn) -> Case:
    factor = draw(whole(1, 3))
    return {"upscale_factor": factor}, draw(maps(st.just(multiple(draw, factor**2))))


@composite("channel_shuffle")
def _(draw: DrawFn) -> Case:
    groups = draw(whole(1, 4))
    return {"groups": groups}, draw(maps(st.just(multiple(draw, groups))))


@composite("chunk")
def _(draw: DrawFn) -> Case:
    chunks = draw(whole(1, 4))
    channels = multiple(draw, chunks)
    shape = draw(st.one_of(maps(st.just(channels)), st.just(TensorShape((channels,)))))
    return {"chunks": chunks, "index": draw(whole(0, chunks - 1))}, shape


@composite("hardtanh")
def _(draw: DrawFn) -> Case:
    low, high = draw(st.tuples(numbers, numbers))
    return {"min_val": low, "max_val": high}, draw(any_shape)


SETTINGS.update({
    "batch_norm": cases(st.one_of(flat, every_rank), **running),
    "instance_norm": cases(st.one_of(maps(size=3), maps(size=3, rank=1)), **running),
    "channel_bias": cases(any_shape, init_value=numbers),
    "channel_max": cases(every_rank),
    "channel_mean": cases(every_rank),
    "global_response_norm": cases(every_rank, eps=positive),
    "transpose": cases(maps(), dim0_=whole(1, 3), dim1_=whole(1, 3)),
    "layer_norm": cases(st.one_of(flat, every_rank), eps=positive, elementwise_affine=booleans, bias=booleans),
    "local_response_norm": cases(
        maps(), size_=whole(1, 7), alpha=positive, beta=positive, k=positive
    ),
    "linear2d": cases(maps(), out_features_=whole(1, 20), bias=booleans),
    "linear": cases(flat, out_features_=whole(1, 20), bias=booleans),
    "flatten": cases(any_shape, start_dim=whole(1, 4)),
    "identity": cases(any_shape),
    "pixel_unshuffle": cases(maps(), downscale_factor_=whole(1, 3)),
    "scale": cases(any_shape, factor_=numbers),
    "layer_scale": cases(any_shape, init_value=numbers),
    "dropout": cases(any_shape, p=fractions),
    "alpha_dropout": cases(any_shape, p=fractions),
    "drop_path": cases(any_shape, p_=fractions),
    "glu": cases(any_shape),
    "leaky_relu": cases(any_shape, negative_slope=numbers),
    "elu": cases(any_shape, alpha=numbers),
    "celu": cases(any_shape, alpha=positive),
    "gelu": cases(any_shape, approximate=st.sampled_from(["none", "tanh"])),
    "softplus": cases(any_shape, beta=positive, threshold=numbers),
    **dict.fromkeys(
        [
            "relu", "relu6", "selu", "silu", "mish", "sigmoid", "tanh", "hardswish", "hardsigmoid",
            "softmax", "log_softmax",
        ],
        cases(any_shape),
    ),
})  # fmt: skip
