"""Every level of a network is a module: called, hooked, wrapped, replaced, edited and shared."""

from __future__ import annotations

import copy
import gc
import linecache
from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lowering import (
    ADDED,
    BODIES,
    VARIED,
    assert_same,
    batch,
    both,
    compiled,
    fused_calls,
    step,
)
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import cnngraph
from cnngraph.nn.level import JoinLevel, Level, Sequential

pytestmark = pytest.mark.usefixtures("one_thread", "convolutions_of_any_size")

NESTED = {**BODIES, "varied": VARIED, "added": ADDED}


def levels_of(network: nn.Module) -> list[str]:
    kinds = (Level, JoinLevel, Sequential)
    return [path for path, module in network.named_modules() if path and type(module) in kinds]


EVERY_LEVEL = [(name, path) for name, body in NESTED.items() for path in levels_of(compiled(body))]
every_level = pytest.mark.parametrize(("name", "path"), EVERY_LEVEL, ids="-".join)


def calls_of_level(network: nn.Module, path: str, change: bool) -> list[str]:
    """Hooks a level in every way, and returns the list that the hooks write to."""
    seen: list[str] = []
    level = network.get_submodule(path)

    def after(module: nn.Module, args: Any, result: Any) -> Any:
        seen.append("forward")
        if change and isinstance(result, Tensor):
            return result * 1.5
        return None

    level.register_forward_pre_hook(lambda module, args: seen.append("before"))
    level.register_forward_hook(after)
    level.register_full_backward_hook(lambda module, *grads: seen.append("backward"))
    return seen


@every_level
def test_hooks_of_a_level_fire_once_and_may_change_its_result(name: str, path: str) -> None:
    fused, eager = both(NESTED[name])
    seen = [calls_of_level(network, path, change=True) for network in (fused, eager)]
    assert_same(step(fused, batch()), step(eager, batch()))
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == ["backward", "before", "forward"]


@every_level
def test_a_wrapped_level_is_called(name: str, path: str) -> None:
    fused, eager = both(NESTED[name])
    for network in (fused, eager):
        network.set_submodule(path, checkpoint_wrapper(network.get_submodule(path)))
    found, expected = step(fused, batch()), step(eager, batch())
    assert_same(*({k.replace("._checkpoint_wrapped_module", ""): v for k, v in each.items()} for each in (found, expected)))  # fmt: skip


class Halved(nn.Module):
    """What stands in for a level: the same shapes are kept by running it, and its values change."""

    def __init__(self, level: nn.Module) -> None:
        super().__init__()
        self.level = level

    def forward(self, *inputs: Tensor) -> Any:
        result = self.level(*inputs)
        return result / 2 if isinstance(result, Tensor) else tuple(value / 2 for value in result)


@every_level
def test_a_replaced_level_is_called(name: str, path: str) -> None:
    fused, eager = both(NESTED[name])
    before = step(copy.deepcopy(fused), batch())
    for network in (fused, eager):
        network.set_submodule(path, Halved(network.get_submodule(path)))
    found = step(fused, batch())
    assert_same(found, step(eager, batch()))
    results = [key for key in found if key.startswith(("result", "gradient of the input"))]
    assert any(not torch.allclose(found[key], before[key]) for key in results)


@pytest.mark.parametrize("name", ["residual", "repeat"])
def test_a_level_replaced_by_an_identity(name: str) -> None:
    fused, eager = both(BODIES[name])
    path = {"residual": "layer.1", "repeat": "layer"}[name]
    for network in (fused, eager):
        network.set_submodule(path, nn.Identity())
    assert_same(step(fused, batch()), step(eager, batch()))


@pytest.mark.parametrize("name", sorted({name for name, _ in EVERY_LEVEL}))
def test_each_level_computes_the_same_when_called_alone(name: str) -> None:
    fused, eager = both(NESTED[name])
    inputs: dict[str, tuple[Tensor, ...]] = {}
    for path in levels_of(eager):
        eager.get_submodule(path).register_forward_hook(
            lambda module, args, result, path=path: inputs.update({path: args})
        )
    eager(batch())
    assert inputs
    for path, args in inputs.items():
        given = [tensor.detach() for tensor in args]
        results = [network.get_submodule(path)(*given) for network in (fused, eager)]
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-10)


def test_a_hook_keeps_everything_else_fused() -> None:
    network = compiled(VARIED)
    calls = len(fused_calls(network))
    network.block.register_forward_hook(lambda *_: None)
    assert len(fused_calls(network)) == calls
    assert "dense_block(" in network.code or "dense_block(" in network.dense.code


CHAIN = """
    - sequential:
        name: features
        body: [conv2d: {out_channels: 4, kernel_size: 3}, batch_norm, relu, max_pool2d: 2]
    - flatten
    - sequential: {name: classifier, body: [linear: 5, relu, linear: 3]}
"""


def test_a_chain_is_an_nn_sequential() -> None:
    network = compiled(CHAIN)
    features = network.features
    assert isinstance(network, nn.Sequential)
    assert isinstance(features, nn.Sequential)
    assert len(features) == 4
    assert [type(module) for module in features] == [
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.MaxPool2d,
    ]
    assert isinstance(features[-1], nn.MaxPool2d)
    part = features[:2]
    assert type(part) is nn.Sequential
    torch.testing.assert_close(part(batch()), features[1](features[0](batch())))
    torch.testing.assert_close(nn.Sequential(*network.children())(batch()), network(batch()))


@pytest.mark.parametrize(
    "edit",
    [
        lambda features: features.append(nn.Tanh()),
        lambda features: features.insert(1, nn.Tanh()),
        lambda features: features.__delitem__(2),
        lambda features: features.__setitem__(2, nn.Softsign()),
        lambda features: features.__setitem__(0, nn.Conv2d(3, 4, 3, dtype=torch.float64)),
        lambda features: features.pop(-2),
        lambda features: features.extend([nn.Tanh(), nn.Sigmoid()]),
        lambda features: features.__setitem__(slice(1, 3), [nn.Tanh(), nn.Sigmoid()]),
    ],
    ids=["append", "insert", "del", "activation", "convolution", "pop", "extend", "slice"],
)
def test_edits_of_a_chain_are_run(edit: Any) -> None:
    network = compiled(CHAIN)
    try:
        torch.manual_seed(1)
        edit(network.features)
    except (TypeError, ValueError) as error:  # torch's own: assigning to a slice
        pytest.skip(f"torch's nn.Sequential refuses it too: {error}")
    plain = nn.Sequential(OrderedDict(copy.deepcopy(network.features)._modules))
    expected = copy.deepcopy(plain)(batch())
    torch.testing.assert_close(network.features(batch()), expected, rtol=1e-9, atol=1e-10)


def test_children_added_to_or_taken_from_other_levels() -> None:
    network = compiled(BODIES["residual"])
    level = network.get_submodule("layer.0")
    before = step(copy.deepcopy(network), batch())
    level.add_module("unused", nn.Linear(2, 2))
    del level.unused
    assert_same(step(network, batch()), before)
    del level.conv1
    with pytest.raises(AttributeError, match="conv1"):
        network(batch())


def test_equal_levels_share_their_code() -> None:
    network = cnngraph.compile(
        "cnngraph: 1\nname: net\ninput: [8, 8, 8]\ngraph:\n- repeat:\n    name: layer\n    times: "
        "50\n    body:\n"
        "      sequential: [conv2d: {out_channels: 8, kernel_size: 3, padding: 1}, batch_norm, "
        "relu]\n"
    )
    codes = {id(level._code) for level in network.layer}
    assert len(codes) == 1


def test_parameters_and_their_gradients_are_contiguous() -> None:
    for body in (VARIED, ADDED):
        network = compiled(body, dtype=torch.float32)
        network(batch(torch.float32)).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.is_contiguous(), name
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride(), name


def test_a_batch_norm_over_one_value_is_named() -> None:
    body = (
        "- conv2d: {out_channels: 4, kernel_size: 8}\n- sequential: {name: head, body: "
        "[batch_norm: {name: bn}, relu]}"
    )
    for backend in ("fused", "eager"):
        network = compiled(body, backend)
        with pytest.raises(ValueError, match=r"Expected more than 1 value per channel.*`head\.bn`"):
            network(batch(size=1))
        network(batch(size=2))


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_networks_with_any_levels_hooked_equal_eager(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(NESTED)))
    fused, eager = both(NESTED[name])
    paths = data.draw(st.lists(st.sampled_from([p for p, _ in fused.named_modules() if p]), min_size=1, max_size=4, unique=True))  # fmt: skip
    for network in (fused, eager):
        for path in paths:
            network.get_submodule(path).register_forward_hook(
                lambda module, args, result: result * 1.25 if isinstance(result, Tensor) else None
            )
    assert_same(step(fused, batch()), step(eager, batch()))


def test_names_that_networks_use_are_refused_as_names_of_nodes() -> None:
    from cnngraph.elaborate.naming import name_problem

    network = compiled(CHAIN)
    inner = compiled(BODIES["residual"])
    modules = (network, network.features, inner, inner.get_submodule("layer.0"))
    for module in modules:
        for name in {*dir(module)} - set(module._modules):
            if not name.startswith("_") and name.isidentifier():
                assert name_problem(name) is not None, name


def test_the_source_of_a_network_that_is_gone_is_forgotten() -> None:
    network = cnngraph.compile("cnngraph: 1\nname: forgotten\ninput: [1, 2, 2]\ngraph: [relu]\n")
    sources = [name for name in linecache.cache if "cnngraph forgotten" in name]
    assert sources
    del network
    gc.collect()
    assert not linecache.cache.keys() & {*sources}
