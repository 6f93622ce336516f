"""Recipes: the shipped ones, overrides, and the diagnostics of mistakes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import stripes
import torch
from conftest import SPECS

import cnngraph
from cnngraph import training
from cnngraph.errors import CnngraphError, Source, SpecError
from cnngraph.spec.loader import load_spec
from cnngraph.training.optimization import moving_average, optimizer_of, rate_factor, state_slots
from cnngraph.training.recipe import Recipe, Schedule, parse_recipe, shipped

NETWORKS = {load_spec(path).name for path in [*SPECS.glob("*.yaml"), *SPECS.glob("d2l/*.yaml")]}


def mistakes(text: str, **overrides: object) -> str:
    with pytest.raises(SpecError) as caught:
        parse_recipe(Source("my.yaml", f"recipe: 1\n{text}"), overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_valid_and_for_shipped_networks(name: str) -> None:
    recipe = training.load_recipe(name)
    assert recipe.name == name
    for pattern in recipe.networks:
        assert any(fnmatchcase(network, pattern) for network in NETWORKS), pattern


def test_a_recipe_survives_being_written() -> None:
    text = "optimizer: {name: SGD, momentum: 0.9}\nunfreeze: {3: [conv, bn]}\nfreeze: '*'\n"
    recipe = parse_recipe(Source("my.yaml", f"recipe: 1\n{text}"))
    assert recipe.unfreeze == {3: ("conv", "bn")}
    assert parse_recipe(Source("again.yaml", recipe.to_yaml())) == recipe


def test_overrides_replace_parts() -> None:
    overrides = {"optimizer.lr": 1, "augment.random_resized_crop.scale": [0.5, 1], "epochs": 3}
    recipe = training.load_recipe("digits", overrides)
    assert recipe.optimizer.lr == 1.0
    assert recipe.augment.random_resized_crop is not None
    assert recipe.augment.random_resized_crop.scale == (0.5, 1)
    assert (recipe.epochs, recipe.augment.rotation) == (3, 10)


def test_mistakes_have_a_line_and_name_the_nearest() -> None:
    shown = mistakes("epoch: 3\nschedule: {name: cosin}\noptimizer: {lr: fast}\n")
    assert "error[E101 unknown-key]: a recipe does not accept `epoch`\n  --> my.yaml:2:1" in shown
    assert "did you mean `epochs`?" in shown
    assert "`schedule.name` must be one of 'one_cycle', 'cosine', 'step' or 'constant'" in shown
    assert "did you mean `cosine`?" in shown
    assert "`optimizer.lr` must be a number" in shown


def test_optimizers_and_their_arguments_are_those_of_torch() -> None:
    assert "there is no optimizer `Adamw`" in mistakes("optimizer: {name: Adamw}")
    assert "did you mean `AdamW`?" in mistakes("optimizer: {name: Adamw}")
    shown = mistakes("optimizer: {name: SGD, momentun: 0.9}")
    assert "SGD does not accept `momentun`\n  --> my.yaml:2:24" in shown
    assert "did you mean `momentum`?" in shown
    assert "SGD: Nesterov momentum requires" in mistakes("optimizer: {name: SGD, nesterov: true}")


def test_contradictions_are_reported() -> None:
    assert "`step` needs `milestones`" in mistakes("schedule: {name: step}")
    assert "`milestones` belong to" in mistakes("schedule: {name: cosine, milestones: [3]}")
    assert "`one_cycle` has its own warm-up" in mistakes("schedule: {warmup_epochs: 2}")


def test_overrides_are_validated_too() -> None:
    shown = mistakes("", batch_size=0.5)
    assert "`batch_size` must be a whole number, not 0.5\n  --> override batch_size:1:1" in shown


def test_files_that_are_no_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not a recipe: the key `recipe: 1` is missing"):
        training.load_recipe(SPECS / "lenet.yaml")
    with pytest.raises(CnngraphError, match="no recipe `digit`; did you mean `digits`"):
        training.load_recipe("digit")
    with pytest.raises(SpecError, match="does not exist"):
        training.load_recipe(tmp_path / "missing.yaml")


def test_a_recipe_for_other_networks_is_refused() -> None:
    with pytest.raises(CnngraphError, match="`resnet_cifar` is for resnet.*, not for `tiny`"):
        training.fit(stripes.TINY, stripes.data(), "resnet_cifar")
    with pytest.raises(CnngraphError, match="the recipe is for other, not for `tiny`"):
        training.fit(stripes.TINY, stripes.data(), overrides={"networks": "other", "name": None})


# schedules and optimizers


def factors(schedule: Schedule, steps: int = 10, epochs: int = 4) -> list[float]:
    total = steps * epochs
    return [rate_factor(schedule, step, steps, total) for step in range(total)]


def test_schedules_give_the_rates_they_promise() -> None:
    cosine = factors(Schedule(name="cosine", warmup_epochs=1))
    assert cosine[:2] == [0.1, 0.2]
    assert cosine[9] == cosine[10] == 1.0
    assert cosine[25] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.01
    step = factors(Schedule(name="step", milestones=(1, 3), gamma=0.1))
    assert (step[9], step[10], step[30]) == (1.0, 0.1, pytest.approx(0.01))
    assert set(factors(Schedule(name="constant"))) == {1.0}
    cycle = factors(Schedule(name="one_cycle"))
    assert cycle[0] == pytest.approx(1 / 25)
    assert max(cycle) == cycle[12] == 1.0
    assert cycle[-1] < 0.01


def test_norms_and_biases_have_no_weight_decay() -> None:
    net = cnngraph.compile(stripes.TINY)
    recipe = Recipe(layer_decay=0.5)
    optimizer = optimizer_of(net, recipe)
    names = {id(value): name for name, value in net.named_parameters()}
    found = {
        names[id(value)]: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for value in group["params"]
    }
    lr = recipe.optimizer.lr
    assert found == {
        "conv.weight": (0.01, lr / 4),
        "conv.bias": (0.0, lr / 4),
        "bn.weight": (0.0, lr / 2),
        "bn.bias": (0.0, lr / 2),
        "fc.weight": (0.01, lr),
        "fc.bias": (0.0, lr),
    }


@pytest.mark.parametrize(
    ("text", "fused"),
    [
        ("{name: AdamW}", True),
        ("{name: SGD, momentum: 0.9}", True),
        ("{name: AdamW, fused: false}", False),
        ("{name: AdamW, foreach: true}", None),
        ("{name: RMSprop}", None),
    ],
)
def test_one_pass_updates_the_weights_where_torch_has_it(text: str, fused: bool | None) -> None:
    net = cnngraph.compile(stripes.TINY)
    recipe = parse_recipe(Source("a", f"recipe: 1\noptimizer: {text}"))
    assert optimizer_of(net, recipe, one_pass=True).defaults.get("fused") is fused
    assert not optimizer_of(net, recipe).defaults.get("fused")


@pytest.mark.parametrize(
    ("text", "slots"),
    [("{name: SGD}", 0), ("{name: SGD, momentum: 0.9}", 1), ("{name: AdamW}", 2)],
)
def test_the_state_of_optimizers_is_counted(text: str, slots: int) -> None:
    assert state_slots(parse_recipe(Source("a", f"recipe: 1\noptimizer: {text}"))) == slots


def test_the_moving_average_follows_the_weights() -> None:
    net = torch.nn.Linear(1, 1)
    average = moving_average(net, 0.9)
    value = None
    for step, decay in enumerate([0.0, 2 / 11, 3 / 12]):
        torch.nn.init.constant_(net.weight, step)
        average.update_parameters(net)
        value = step if value is None else decay * value + (1 - decay) * step
    assert average.module.weight.item() == pytest.approx(value)
