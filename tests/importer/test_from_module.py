"""Modules become specs that compute the same with the same weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hand_written
import hand_written_others as others
import pytest
import torch
from conftest import SPECS
from round_trip import assert_comes_back
from table import with_statistics
from torch import nn
from typer.testing import CliRunner

import cnngraph
from cnngraph import CnngraphError
from cnngraph.cli import app
from cnngraph.importer import Imported, from_module
from cnngraph.importer.named import module_by_name

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same(module: nn.Module, imported: Imported, shape: tuple[int, ...]) -> None:
    network = imported.compile(backend="eager").eval()
    state = network.state_dict()
    assert state.keys() == module.state_dict().keys()
    for key, tensor in module.state_dict().items():
        assert torch.equal(state[key], tensor), key
    x = torch.randn(2, *shape)
    with torch.no_grad():
        torch.testing.assert_close(network(x), module.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [hand_written.UNet, hand_written.Residual, hand_written.Permuted])
def test_imported_module_computes_the_same(kind: type[nn.Module]) -> None:
    module = with_statistics(kind())
    imported = from_module(module, (3, 16, 16))
    assert_same(module, imported, (3, 16, 16))
    assert list(imported.compile(backend="eager").state_dict()) == list(module.state_dict())


Shape = tuple[int, ...]


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        (others.SharedWeights, [(3, 16, 16)]),
        (others.TwoInputs, [(3, 16, 16), (1, 16, 16)]),
        (others.Pyramid, [(3, 32, 32)]),
        (others.Signal, [(4, 40)]),
        (others.Volume, [(2, 8, 8, 8)]),
        (others.Gates, [(3, 16, 16)]),
    ],
)
def test_all_results_of_all_inputs_are_the_same(kind: type[nn.Module], shapes: list[Shape]) -> None:
    module = with_statistics(kind())
    network = from_module(module, shapes).compile(backend="eager").eval()
    assert network.state_dict().keys() == module.state_dict().keys()
    inputs = [torch.randn(2, *shape) for shape in shapes]
    with torch.no_grad():
        expected, found = module(*inputs), network(*inputs)
    if isinstance(expected, tuple):
        expected = {str(index): value for index, value in enumerate(expected)}
    torch.testing.assert_close(found, expected)


def test_later_calls_of_a_module_are_shares() -> None:
    spec = from_module(others.SharedWeights(), (3, 16, 16)).spec
    assert "- share: conv" in spec
    assert "- share: head" in spec


def test_side_head_in_a_named_tuple_is_aux() -> None:
    module = with_statistics(others.SideHead())
    imported = from_module(module, (3, 8, 8))
    assert "- aux:" in imported.spec
    assert_same(module, imported, (3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    network = imported.compile(backend="eager").train()
    found = list(network(x).values())
    torch.testing.assert_close(found, list(module.train()(x)))


def test_inputs_by_name_may_come_in_any_order() -> None:
    module = others.TwoInputs()
    spec = from_module(module, {"depth": (1, 8, 8), "rgb": torch.zeros(1, 3, 8, 8)}).spec
    assert "inputs: {rgb_input: [3, 8, 8], depth_input: [1, 8, 8]}" in spec
    assert 'outputs: {features: relu_1, logits: "."}' in spec


def test_command_takes_a_shape_for_each_input() -> None:
    args = ["import", "hand_written_others:TwoInputs", "--input", "3,8,8", "--input", "1,8,8"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert "name: two_inputs\ninputs: {rgb_input: [3, 8, 8], depth_input: [1, 8, 8]}" in (
        result.stdout
    )


def test_size_of_another_map_stays_that_of_the_map() -> None:
    spec = from_module(others.Pyramid(), (3, 32, 32)).spec
    assert "upsample: {like: inner.1}" in spec


def test_an_input_of_another_size_computes_the_same() -> None:
    module = with_statistics(hand_written.UNet())
    assert_same(module, from_module(module, torch.zeros(1, 3, 16, 16)), (3, 24, 32))


def test_repeated_structure_becomes_blocks_and_repeats() -> None:
    imported = from_module(hand_written.Residual(), (3, 16, 16))
    assert "blocks:" in imported.spec
    assert "order: [scale, skip]" in imported.spec
    assert "over: [[8, 1], [8, 1], [16, 2], [32, 2]]" in imported.spec
    assert imported.spec.count("conv2d") == 3


def test_modules_of_lists_are_repeated_under_their_names() -> None:
    module = with_statistics(others.ListsOfModules())
    imported = from_module(module, (3, 16, 16))
    assert "times: 4" in imported.spec
    assert imported.spec.count("batch_norm") == 1
    assert_same(module, imported, (3, 16, 16))
    assert list(imported.compile(backend="eager").state_dict()) == list(module.state_dict())


def test_figures_are_expected() -> None:
    module = hand_written.Residual()
    imported = from_module(module, (3, 16, 16))
    params = sum(parameter.numel() for parameter in module.parameters())
    assert f"params: {params:_}" in imported.spec or f"params: {params}" in imported.spec
    assert cnngraph.check(imported.spec).ok


def test_importing_changes_nothing_about_the_module() -> None:
    module = hand_written.Residual().train()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    from_module(module, (3, 16, 16))
    assert module.training
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


def test_what_a_module_stores_and_its_modes_stay() -> None:
    module = others.Stores()
    with pytest.raises(CnngraphError):
        from_module(module, (3, 16, 16))
    assert module.stored is None
    assert (module.training, module.norm.training) == (True, False)


def test_module_with_a_computed_tensor_is_an_error() -> None:
    module = others.Stores()
    module.stored = module.weight * 2
    with pytest.raises(CnngraphError, match="the module cannot be copied to be traced: Only Tens"):
        from_module(module, (3, 16, 16))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (hand_written.Sorted, r"hand_written.py:\d+: the language has no word for `sort`"),
        (
            hand_written.BranchesOnValues,
            r"hand_written.py:\d+: the module cannot be traced: it reads the values",
        ),
        (hand_written.Unused, r"`other.weight` is part of the module, but its result"),
    ],
)
def test_what_cannot_be_said_is_named_with_its_place(kind: type[nn.Module], message: str) -> None:
    with pytest.raises(CnngraphError, match=message):
        from_module(kind(), (3, 16, 16))


def assert_round_trip(spec: Path) -> None:
    with torch.device("meta"):
        network = cnngraph.compile(spec, backend="eager")
    graph = network.compilation.graph
    assert_comes_back(from_module(network, graph.input), graph)


FAST = ["lenet", "d2l/nin", "d2l/resnet18", "d2l/densenet", "shufflenet_v2_x1_0"]
ALL = sorted(
    path.relative_to(SPECS).with_suffix("").as_posix()
    for path in [*SPECS.glob("*.yaml"), *SPECS.glob("d2l/*.yaml")]
)


@pytest.mark.parametrize("name", FAST)
def test_shipped_spec_makes_the_round_trip(name: str) -> None:
    assert_round_trip(SPECS / f"{name}.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in FAST])
def test_every_shipped_spec_makes_the_round_trip(name: str) -> None:
    assert_round_trip(SPECS / f"{name}.yaml")


def named(source: str) -> tuple[nn.Module, str, Any]:
    package = source.partition(":")[0]
    try:
        return module_by_name(source)
    except CnngraphError as error:
        if "is not installed" not in str(error):
            raise
        return pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize("source", ["torchvision:resnet18", "torchvision:squeezenet1_1"])
def test_networks_of_packages(source: str) -> None:
    module, name, _ = named(source)
    imported = from_module(with_statistics(module), (3, 64, 64), name=name)
    assert re.search(rf"^name: {name}$", imported.spec, re.MULTILINE)
    assert_same(module, imported, (3, 64, 64))
