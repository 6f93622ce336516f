"""Recipes: how a network is trained, as data. A YAML file is validated like a spec."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import ConfigDict, Field, PlainValidator

from cnngraph.errors import (
    CnngraphError,
    Diagnostic,
    Notes,
    Position,
    Source,
    SpecError,
    did_you_mean,
)
from cnngraph.spec.yaml import Located, parse_yaml
from cnngraph.training.document import (
    StrictModel,
    find_document,
    read_document,
    require_mapping,
    shipped_in,
    validated,
)

FOLDER = Path(__file__).parent / "recipes"
"""The recipes that are installed with the package."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Optimizer(StrictModel):
    """An optimizer of `torch.optim` by its name; other keys are its arguments.

    Attributes:
        lr: the learning rate after the warm-up.
        weight_decay: of all parameters but biases and those of norms.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str = "AdamW"
    lr: Positive = 0.01
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01

    @property
    def arguments(self) -> dict[str, Any]:
        """The further arguments of the optimizer."""
        return dict(self.__pydantic_extra__ or {})


class Schedule(StrictModel):
    """How the learning rate changes from step to step.

    Attributes:
        name: `one_cycle` rises for 30% of the steps from 1/25 of the rate, then falls to almost
            zero (Smith and Topin, 2018); `cosine` falls to zero along a cosine (Loshchilov and
            Hutter, 2017); `step` multiplies by `gamma` at each milestone; `constant` stays.
        warmup_epochs: epochs in which the rate rises linearly from zero; not for `one_cycle`.
        milestones: epochs at whose start the rate falls, for `step`.
        gamma: the factor at each milestone.
    """

    name: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    milestones: tuple[Positive, ...] = ()
    gamma: Positive = 0.1


class RandomResizedCrop(StrictModel):
    """Crops a random part and resizes it to the input (Szegedy et al., 2015)."""

    scale: tuple[Share, Share] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 4 / 3)


class ColorJitter(StrictModel):
    """Random changes of the colours, by at most these shares."""

    brightness: Annotated[float, Field(ge=0)] = 0.0
    contrast: Annotated[float, Field(ge=0)] = 0.0
    saturation: Annotated[float, Field(ge=0)] = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class Augmentation(StrictModel):
    """What changes the images of a training batch at random. Evaluation changes nothing.

    Attributes:
        horizontal_flip, vertical_flip: the probability of a flip.
        crop_padding: pixels of padding from which a random part of the input's size is cropped.
        rotation: the largest angle, in degrees.
        random_erasing: the probability that a rectangle is erased (Zhong et al., 2020).
        mixup: alpha of the Beta distribution of the mixing share (Zhang et al., 2018).
        cutmix: likewise for rectangles of other images (Yun et al., 2019). With both, each batch
            gets one of the two.
    """

    horizontal_flip: Share = 0.0
    vertical_flip: Share = 0.0
    random_resized_crop: RandomResizedCrop | None = None
    crop_padding: Annotated[int, Field(ge=0)] = 0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    color_jitter: ColorJitter | None = None
    random_erasing: Share = 0.0
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0


class EarlyStopping(StrictModel):
    """Ends the run when the validation loss has not improved for `patience` epochs."""

    patience: Count = 10
    min_delta: Annotated[float, Field(ge=0)] = 0.0


def _patterns(value: Any) -> tuple[str, ...]:
    items: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, str) for item in items):
        raise ValueError("must be a pattern such as `layer1*`, or a list of them")
    return items


def _unfreeze(value: Any) -> dict[int, tuple[str, ...]]:
    entries = cast("dict[Any, Any]", value) if isinstance(value, dict) else {"": ""}
    if not all(str(key).isdigit() for key in entries):
        raise ValueError("must map epochs to patterns, such as `{5: layer4}`")
    return {int(key): _patterns(item) for key, item in entries.items()}


Patterns = Annotated[tuple[str, ...], PlainValidator(_patterns)]


class Recipe(StrictModel):
    """How a network is trained.

    Attributes:
        recipe: the version of this format.
        name, source: what it is called, and where it was published.
        networks: names of the networks it is for, or patterns such as `resnet*`; empty for all.
        epochs: passes over the images.
        batch_size: images per step; of all devices together.
        accumulate: batches whose gradients are added up for one step of the optimizer.
        label_smoothing: share of the target that is spread over all classes.
        precision: `float32`, or 16 bits under autocast; `float16` needs a GPU.
        clip_gradient_norm: the largest norm of the gradient of all parameters.
        ema: decay of the moving average of the weights, which is then evaluated and kept.
        aux_weight: the weight of the losses of side heads.
        early_stopping: when to end the run before its last epoch.
        freeze: patterns of the parts that are not trained.
        unfreeze: epoch -> patterns of the parts that are trained from then on.
        layer_decay: factor of the learning rate from each part of the network to the one before it.
        seed: determines the initial weights, the order of the images and their augmentation.
    """

    recipe: Literal[1] = 1
    name: str | None = None
    source: str | None = None
    networks: Patterns = ()
    epochs: Count = 20
    batch_size: Count = 64
    accumulate: Count = 1
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    augment: Augmentation = Augmentation()
    label_smoothing: Share = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    clip_gradient_norm: Positive | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    aux_weight: Annotated[float, Field(ge=0)] = 0.3
    early_stopping: EarlyStopping | None = None
    freeze: Patterns = ()
    unfreeze: Annotated[dict[int, tuple[str, ...]], PlainValidator(_unfreeze)] = {}
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    def require_network(self, network: str) -> None:
        """Raises `CnngraphError` if the recipe is for other networks."""
        if self.networks and not any(fnmatchcase(network, item) for item in self.networks):
            name = "the recipe" if self.name is None else f"the recipe `{self.name}`"
            raise CnngraphError(f"{name} is for {', '.join(self.networks)}, not for `{network}`")

    def to_yaml(self) -> str:
        """The recipe as text that `load_recipe` reads."""
        plain = self.model_dump(exclude_defaults=True)
        if "unfreeze" in plain:
            plain["unfreeze"] = {str(key): value for key, value in plain["unfreeze"].items()}
        return yaml.safe_dump({"recipe": 1, **plain}, sort_keys=False)


def shipped() -> dict[str, Path]:
    """Name -> file of the recipes that are installed with the package."""
    return shipped_in(FOLDER)


def load_recipe(
    recipe: str | Path | Recipe | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe from a file, or by the name of a shipped one.

    Args:
        recipe: a path, the name of a shipped recipe, or a recipe. By default `default`.
        overrides: key -> value that replaces the recipe's, such as `{"optimizer.lr": 0.1}`.

    Raises:
        SpecError: the recipe is invalid; its `diagnostics` list every mistake.
        CnngraphError: there is no such recipe.
    """
    if isinstance(recipe, Recipe):
        if not overrides:
            return recipe
        source = Source("<recipe>", recipe.to_yaml())
    else:
        source = read_document(find_document(recipe or "default", FOLDER, "recipe"), FOLDER)
    return parse_recipe(source, overrides)


def parse_recipe(source: Source, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from text; see `load_recipe`."""
    found = parse_yaml(source)
    for key, value in (overrides or {}).items():
        found = _replaced(found, key.split("."), _located(key, value), key)
    require_mapping(found, "a recipe")
    if "recipe" not in found.entries:
        message = "this is not a recipe: the key `recipe: 1` is missing"
        raise SpecError([Diagnostic("E102", message, found.position)])
    return validated(Recipe, found, "a recipe", _contradictions)


def _located(key: str, value: Any) -> Located:
    if isinstance(value, Located):
        return value
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
    return parse_yaml(Source(f"override {key}", text))


def _replaced(found: Located, path: list[str], value: Located, key: str) -> Located:
    """A document in which the value at a path is replaced, or added."""
    if not path:
        return value
    first, *rest = path
    inner = found.entries.get(first) or Located({}, value.position)
    made = _replaced(inner, rest, value, key)
    positions = {**found.keys, first: Position(value.position.source, 1, 1)}
    return Located({**found.entries, first: made}, found.position, positions)


def optimizer_class(name: str) -> Any:
    """The optimizer of `torch.optim`, or None."""
    from torch import optim

    found = getattr(optim, name, None)
    usable = inspect.isclass(found) and issubclass(found, optim.Optimizer)
    return found if usable and name not in _UNUSABLE else None


_UNUSABLE = ("Optimizer", "LBFGS", "SparseAdam")
"""The base class, and optimizers that need a closure or sparse gradients."""


def _optimizer_mistakes(optimizer: Optimizer, located: Located) -> Iterable[Diagnostic]:
    from torch import optim

    kind = optimizer_class(optimizer.name)
    if kind is None:
        known = [name for name in dir(optim) if optimizer_class(name)]
        notes = _nearest(optimizer.name, known) or (("note", f"there are: {', '.join(known)}"),)
        at = located.follow(("name",)).position
        yield Diagnostic("E103", f"there is no optimizer `{optimizer.name}`", at, notes=notes)
        return
    accepted = [name for name in inspect.signature(kind).parameters if name != "params"]
    for key in optimizer.arguments:
        at = located.keys.get(key, located.position)
        if key not in accepted:
            notes = _nearest(key, [*accepted, "name"]) or (
                ("note", f"{optimizer.name} accepts: {', '.join(accepted)}"),
            )
            message = f"{optimizer.name} does not accept `{key}`"
            yield Diagnostic("E101", message, at, notes=notes)
            return
    import torch

    try:
        kind([torch.zeros(1, requires_grad=True)], lr=optimizer.lr, **optimizer.arguments)
    except (TypeError, ValueError) as error:
        yield Diagnostic("E103", f"{optimizer.name}: {error}", located.position)


def _nearest(word: str, known: list[str]) -> Notes:
    same = next((name for name in known if name.lower() == word.lower()), None)
    return (("help", f"did you mean `{same}`?"),) if same else did_you_mean(word, known)


def _contradictions(recipe: Recipe, found: Located) -> Iterable[Diagnostic]:
    yield from _optimizer_mistakes(recipe.optimizer, found.follow(("optimizer",)))
    schedule = recipe.schedule
    at = found.follow(("schedule",)).position
    if schedule.name == "step" and not schedule.milestones:
        yield Diagnostic("E204", "the schedule `step` needs `milestones`", at)
    if schedule.name != "step" and schedule.milestones:
        message = f"`milestones` belong to the schedule `step`, not to `{schedule.name}`"
        yield Diagnostic("E204", message, at)
    if schedule.name == "one_cycle" and schedule.warmup_epochs:
        message = "`one_cycle` has its own warm-up: remove `warmup_epochs`"
        yield Diagnostic("E204", message, at)
