"""The cat_batch_norm_act operator against torch's own functions in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import on_every_device
from test_batch_norm_act_op import ACTIVATIONS, DTYPES, TOLERANCE, error_of

from cnngraph import kernels
from cnngraph.kernels.batch_norm_act import batch_norm_act
from cnngraph.kernels.cat_batch_norm_act import Branch, cat_batch_norm_act

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

EPS = 1e-3
# Channels of a branch, and whether it has a batch norm and an activation.
BRANCHES = [
    (17, True, True),
    (5, False, False),
    (8, False, True),
    (3, True, False),
    (1, True, True),
    (64, True, True),
]


def draw(*shape, seed, dtype=torch.float64, channels_last=False, device="cpu"):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = values.to(device, dtype)
    return values.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else values


def branches_of(
    dtype=torch.float32,
    channels_last=False,
    training=True,
    size=(4, 9, 7),
    kinds=BRANCHES,
    device="cpu",
):
    batch, *pixels = size
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    made = []
    for seed, (channels, normalized, activated) in enumerate(kinds):
        x = draw(
            batch,
            channels,
            *pixels,
            seed=seed,
            dtype=dtype,
            channels_last=channels_last,
            device=device,
        )
        weight, bias, mean, var = (
            (draw(4, channels, seed=100 + seed) + 1).abs().to(device, parameters)
        )
        if not normalized:
            made.append(Branch(x, activated=activated))
        else:
            statistics = (None, None) if training else (mean, var)
            made.append(Branch(x, True, activated, weight, bias, *statistics, EPS))
    return made


def leaves_of(branches):
    """The same branches with tensors that have gradients of their own, and these."""
    fresh = [
        replace(
            branch, **{name: value.detach().clone().requires_grad_() for name in ("input", "weight", "bias")
                       if (value := getattr(branch, name)) is not None},
        )
        for branch in branches
    ]  # fmt: skip
    return fresh, [
        t for branch in fresh for t in (branch.input, branch.weight, branch.bias) if t is not None
    ]


def reference(branches, name, arguments=()):
    parts = []
    for branch in branches:
        z = branch.input
        if branch.normalized:
            z = F.batch_norm(
                z, branch.mean, branch.var, branch.weight, branch.bias, branch.mean is None, 0, EPS
            )
        parts.append(ACTIVATIONS[name](z, *arguments) if branch.activated else z)
    return torch.cat(parts, 1)


def doubled(branches):
    return [
        replace(branch, **{key: value.double() for key, value in vars(branch).items() if isinstance(value, torch.Tensor)})
        for branch in branches
    ]  # fmt: skip


def check(branches, grad, name="relu", arguments=(), tolerance=3e-6):
    ours, leaves = leaves_of(branches)
    theirs, leaves64 = leaves_of(doubled(branches))
    y, expected = cat_batch_norm_act(ours, name, arguments)[0], reference(theirs, name, arguments)
    y.backward(grad)
    expected.backward(grad.double())
    assert error_of(y.detach(), expected.detach()) < tolerance
    for leaf, leaf64 in zip(leaves, leaves64, strict=True):
        assert error_of(leaf.grad, leaf64.grad) < 10 * tolerance
        assert leaf.grad.dtype == leaf.dtype


def grad_for(branches, **how):
    first = branches[0].input
    channels = sum(branch.input.shape[1] for branch in branches)
    return draw(
        len(first),
        channels,
        *first.shape[2:],
        seed=50,
        dtype=first.dtype,
        device=first.device,
        **how,
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@on_every_device(*DTYPES)
def test_equals_torch_in_float64(device, dtype, channels_last, training):
    branches = branches_of(dtype, channels_last, training, device=device)
    check(branches, grad_for(branches, channels_last=channels_last), tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(6,), (6, 5), (3, 4, 5, 2), (16, 1, 1), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_any_rank_and_any_activation(size, channels_last):
    kinds = [kind for kind in BRANCHES if kind != (8, False, True)]
    branches = branches_of(torch.float64, channels_last, size=size, kinds=kinds)
    for name, arguments in (("silu", ()), ("leaky_relu", (0.1,))):
        check(
            branches,
            grad_for(branches, channels_last=channels_last),
            name,
            arguments,
            tolerance=1e-11,
        )


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_inputs_and_gradients_in_any_layout(channels_last, device):
    branches = branches_of(torch.float64, channels_last, device=device)
    grad = grad_for(branches, channels_last=channels_last)
    mixed = [
        replace(branch, input=branch.input.contiguous() if index % 2 else branch.input.transpose(2, 3).clone().transpose(2, 3))
        for index, branch in enumerate(branches)
    ]  # fmt: skip
    check(mixed, grad, tolerance=1e-11)
    wide = draw(4, 2 * grad.shape[1], 9, 7, seed=51, device=device)
    for other in (
        grad.contiguous(
            memory_format=torch.contiguous_format if channels_last else torch.channels_last
        ),
        grad[:1].expand(4, -1, -1, -1),
        grad[:1, :1].expand(grad.shape),
        wide[:, ::2],
        wide.to(memory_format=torch.channels_last)[:, 3 : 3 + grad.shape[1]],
    ):
        check(branches, other, tolerance=1e-11)


def test_branches_larger_than_the_cache():
    # Each of 64 channels has 17 MiB, and is written past the cache where its part begins at a
    # multiple of 64 bytes.
    kinds = [(64, True, True), (8, True, True), (64, True, True), (24, True, True)]
    branches = branches_of(channels_last=True, training=False, size=(10, 84, 84), kinds=kinds)
    output, *_ = cat_batch_norm_act(branches, "relu", ())
    alone = [
        batch_norm_act(b.input, b.weight, b.bias, b.mean, b.var, EPS, "relu")[0] for b in branches
    ]
    assert torch.equal(output, torch.cat(alone, 1))


def test_the_layout_is_the_first_inputs():
    for channels_last in (False, True):
        output = cat_batch_norm_act(branches_of(channels_last=channels_last), "relu", ())[0]
        assert output.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_nothing_is_copied(channels_last):
    """Inputs and outputs are slices of the channels of larger tensors."""
    dense, leaves = leaves_of(
        branches_of(channels_last=channels_last, kinds=[(16, True, True), (24, True, False)])
    )
    wide = torch.cat(
        [
            draw(4, 3, 9, 7, seed=9, dtype=torch.float32),
            *(branch.input.detach() for branch in dense),
        ],
        1,
    )
    wide = wide.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    sliced = [
        replace(branch, input=part.requires_grad_())
        for branch, part in zip(dense, wide.split([3, 16, 24], 1)[1:], strict=True)
    ]
    grad = grad_for(dense, channels_last=channels_last)
    with torch.profiler.profile() as profile:
        output = cat_batch_norm_act(sliced, "relu", ())[0]
        found = torch.autograd.grad(output, [branch.input for branch in sliced], grad)
    ran = {event.name for event in profile.events()}
    assert "cnngraph::cat_batch_norm_act" in ran
    assert "cnngraph::batch_norm_act_backward" in ran
    assert ran.isdisjoint({"aten::copy_", "aten::clone", "aten::contiguous", "aten::cat"})
    expected = cat_batch_norm_act(dense, "relu", ())[0]
    torch.testing.assert_close(output, expected)
    for ours, wanted in zip(found, torch.autograd.grad(expected, leaves[::3], grad), strict=True):
        torch.testing.assert_close(ours, wanted)
        assert ours.stride() == wanted.stride()


def test_statistics_are_the_batchs():
    branches = branches_of()
    _, means, variances = cat_batch_norm_act(branches, "relu", ())
    for branch, mean, var in zip(branches, means, variances, strict=True):
        if not branch.normalized:
            assert len(mean) == len(var) == 0
            continue
        _, expected_mean, expected_var = batch_norm_act(
            branch.input, branch.weight, branch.bias, None, None, EPS, "relu"
        )
        assert torch.equal(mean, expected_mean)
        assert torch.equal(var, expected_var)
        assert not mean.requires_grad
    assert {
        len(mean) for mean in cat_batch_norm_act(branches_of(training=False), "relu", ())[1]
    } == {0}


@pytest.mark.parametrize("channels_last", [False, True])
def test_same_bits_for_any_number_of_threads(channels_last):
    branches = branches_of(channels_last=channels_last, size=(8, 40, 40))
    grad = grad_for(branches, channels_last=channels_last)
    results = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 3, 1):
            torch.set_num_threads(number)
            fresh, leaves = leaves_of(branches)
            y = cat_batch_norm_act(fresh, "relu", ())[0]
            y.backward(grad)
            results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(map(torch.equal, results[0], others))


def as_function(branches, name):
    """Of the tensors that may have gradients."""

    def function(*tensors):
        given = iter(tensors)
        fresh = [
            replace(branch, **{key: next(given) for key in ("input", "weight", "bias") if getattr(branch, key) is not None})
            for branch in branches
        ]  # fmt: skip
        return cat_batch_norm_act(fresh, name, ())[0]

    return function


SMALL = [(2, True, True), (1, False, False), (2, True, False)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("verify", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_gradcheck(verify, training):
    branches = branches_of(torch.float64, training=training, size=(3, 2, 3), kinds=SMALL)
    assert verify(as_function(branches, "silu"), leaves_of(branches)[1])
    relu = branches_of(torch.float64, size=(3, 2, 3), kinds=[(2, False, True), (1, False, False)])
    assert verify(as_function(relu, "relu"), leaves_of(relu)[1])


@pytest.mark.parametrize("missing", [(), ("weight",), ("bias",), ("weight", "bias")], ids=str)
def test_each_requires_grad_is_honoured(missing):
    branches = [
        replace(branch, **dict.fromkeys(missing)) for branch in branches_of(kinds=BRANCHES[:4])
    ]
    grad = grad_for(branches)
    everything, all_leaves = leaves_of(branches)
    cat_batch_norm_act(everything, "relu", ())[0].backward(grad)
    for alone in range(len(all_leaves)):
        fresh, leaves = leaves_of(branches)
        for index, leaf in enumerate(leaves):
            leaf.requires_grad_(index == alone)
        cat_batch_norm_act(fresh, "relu", ())[0].backward(grad)
        assert [leaf.grad is not None for leaf in leaves] == [
            index == alone for index in range(len(leaves))
        ]
        torch.testing.assert_close(leaves[alone].grad, all_leaves[alone].grad)
    fresh, leaves = leaves_of(branches)
    for leaf in leaves:
        leaf.requires_grad_(False)
    assert not cat_batch_norm_act(fresh, "relu", ())[0].requires_grad


def test_what_is_kept():
    branches, _ = leaves_of(branches_of(kinds=BRANCHES[:4]))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.data_ptr()), lambda _: None
    ):
        output = cat_batch_norm_act(branches, "relu", ())[0]
        alone = cat_batch_norm_act([branches[0], branches[1]], "relu", ())[0]
    assert [branch.input.data_ptr() in saved for branch in branches] == [True, False, False, True]
    assert output.data_ptr() in saved  # for the ReLU without a batch norm
    assert alone.data_ptr() not in saved


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, 0.0])
def test_copied_branches_are_unchanged_and_relus_equal_torch(value):
    x = torch.full((2, 1, 2, 2), value)
    branches, (plain, activated) = leaves_of([Branch(x), Branch(x, activated=True)])
    output = cat_batch_norm_act(branches, "relu", ())[0]
    torch.testing.assert_close(output, torch.cat([x, F.relu(x)], 1), equal_nan=True, rtol=0, atol=0)
    output.backward(torch.ones_like(output))
    own = x.clone().requires_grad_()
    F.relu(own).backward(torch.ones_like(own))
    assert torch.equal(plain.grad, torch.ones_like(x))
    assert torch.equal(activated.grad, own.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_opcheck(training, dtype):
    for channels_last in (False, True):
        fresh, _ = leaves_of(branches_of(dtype, channels_last, training, kinds=BRANCHES[:4]))
        columns = [[getattr(branch, name) for branch in fresh] for name in
                   ("input", "weight", "bias", "mean", "var", "eps", "normalized", "activated")]  # fmt: skip
        torch.library.opcheck(torch.ops.cnngraph.cat_batch_norm_act, (*columns, "relu", []))


@pytest.mark.parametrize("training", [True, False])
def test_compiled(training):
    branches = branches_of(channels_last=True, training=training)
    grad = grad_for(branches)
    plain = as_function(branches, "relu")
    results = []
    for function in (plain, torch.compile(plain, backend="aot_eager", fullgraph=True)):
        _, leaves = leaves_of(branches)
        y = function(*leaves)
        y.backward(grad)
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_compiled_autograd():
    compiled_autograd = pytest.importorskip("torch._dynamo.compiled_autograd")
    branches = branches_of(kinds=BRANCHES[:4])
    grad = grad_for(branches)
    expected, leaves = leaves_of(branches)
    cat_batch_norm_act(expected, "relu", ())[0].backward(grad)
    fresh, compiled = leaves_of(branches)
    with compiled_autograd._enable(torch.compile(backend="eager", dynamic=False)):
        cat_batch_norm_act(fresh, "relu", ())[0].backward(grad)
    for leaf, other in zip(leaves, compiled, strict=True):
        torch.testing.assert_close(other.grad, leaf.grad)


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (3, 4, 0, 2)], ids=str)
def test_empty_input(shape):
    fresh, leaves = leaves_of(
        [Branch(torch.empty(shape)), Branch(torch.empty(shape), True, True, *torch.ones(2, 4))]
    )
    output = cat_batch_norm_act(fresh, "relu", ())[0]
    assert output.shape == (shape[0], 8, *shape[2:])
    output.sum().backward()
    assert not any(leaf.grad.any() for leaf in leaves)


def test_impossible_arguments_are_refused():
    first, plain = branches_of(kinds=BRANCHES[:2])
    with pytest.raises(
        ValueError, match=r"Expected more than 1 value per channel when training, got input size"
    ):
        cat_batch_norm_act([replace(first, input=torch.randn(1, 17, 1, 1))], "relu", ())
    for other in (plain.input[:1], plain.input[..., :1], plain.input[0], plain.input.double()):
        with pytest.raises(RuntimeError, match="only the channels of the inputs may differ"):
            cat_batch_norm_act([first, Branch(other)], "relu", ())
    with pytest.raises(
        ValueError, match="without a batch norm the activation is a relu, got 'silu'"
    ):
        cat_batch_norm_act([first, replace(plain, activated=True)], "silu", ())
    with pytest.raises(ValueError, match="all lists must be as long as the inputs, 1"):
        torch.ops.cnngraph.cat_batch_norm_act([first.input], [], [], [], [], [], [], [], "relu", [])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(first.input, first.input)
        with pytest.raises(
            NotImplementedError, match=r"cat_batch_norm_act has no forward-mode derivative"
        ):
            cat_batch_norm_act([replace(first, input=dual)], "relu", ())
