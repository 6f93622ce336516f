"""Experiments: networks and recipes to compare, as data. A YAML file is validated like a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from cnngraph.errors import Diagnostic, did_you_mean
from cnngraph.spec.yaml import Located, parse_yaml
from cnngraph.training.document import (
    StrictModel,
    find_document,
    read_document,
    require_mapping,
    shipped_in,
    validated,
)

FOLDER = Path(__file__).parent
"""The experiments that are installed with the package."""

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class Variant(StrictModel):
    """A run of an experiment.

    Attributes:
        spec: the name of a shipped spec, or a path relative to the experiment's file.
        params: values for the spec's params.
        recipe: the name of a shipped recipe.
        overrides: what replaces parts of the recipe, such as `{optimizer.lr: 0.1}`.
        classes: the numbers of the classes to train on and to evaluate on; by default all.
        train_per_class: how many images of each class to train on; by default all.
        weights: the variant, listed before this one, whose last weights are the initial ones.
        book: the accuracy on Fashion-MNIST that the textbook prints.
    """

    spec: Text | None = None
    params: dict[str, Any] = {}
    recipe: Text = "default"
    overrides: dict[str, Any] = {}
    classes: tuple[int, ...] | None = None
    train_per_class: Count | None = None
    weights: Text | None = None
    book: Annotated[float, Field(gt=0, le=1)] | None = None

    def over(self, common: Variant) -> Variant:
        """This variant, with what it leaves open taken from `common`."""
        values = {name: getattr(self, name) for name in self.model_fields_set}
        values["params"] = {**common.params, **self.params}
        values["overrides"] = {**common.overrides, **self.overrides}
        return common.model_copy(update=values)


Name = Annotated[str, Field(pattern=r"^[\w][\w ,.+-]*$")]
"""Names of variants are also those of folders."""


class Experiment(StrictModel):
    """Variants of a network or of its training, to be compared.

    Attributes:
        experiment: the version of this format.
        name: what it is called.
        question: what the comparison answers.
        source: where the textbook or a paper shows it.
        common: what all variants share.
        variants: name -> what is special about it, in the order in which they run.
    """

    experiment: Literal[1]
    name: Text
    question: Text
    source: Text | None = None
    common: Variant = Variant()
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]

    @property
    def merged(self) -> dict[str, Variant]:
        """The variants, with what all share."""
        return {name: variant.over(self.common) for name, variant in self.variants.items()}


def shipped() -> dict[str, Path]:
    """Name -> file of the experiments that are installed with the package."""
    return shipped_in(FOLDER)


def load_experiment(experiment: str | Path) -> Experiment:
    """An experiment from a file, or by the name of a shipped one.

    Raises:
        SpecError: the experiment is invalid; its `diagnostics` list every mistake.
        CnngraphError: there is no such experiment.
    """
    path = find_document(experiment, FOLDER, "experiment")
    found = parse_yaml(read_document(path, FOLDER))
    require_mapping(found, "an experiment")
    made = validated(Experiment, found, "an experiment", _contradictions)
    return _with_paths(made, path.parent)


def _contradictions(experiment: Experiment, found: Located) -> list[Diagnostic]:
    diagnostics: list[Diagnostic] = []
    names = list(experiment.variants)
    for index, (name, variant) in enumerate(experiment.merged.items()):
        located = found.follow(("variants",)).follow((name,))
        if variant.spec is None:
            message = f"`{name}` has no `spec`, and `common` has none either"
            diagnostics.append(Diagnostic("E102", message, located.position))
        if variant.weights is not None and variant.weights not in names[:index]:
            message = f"`weights` must name a variant before `{name}`, not `{variant.weights}`"
            at = located.follow(("weights",)).position
            notes = did_you_mean(variant.weights, names[:index])
            diagnostics.append(Diagnostic("E103", message, at, notes=notes))
    return diagnostics


def _with_paths(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment, whose specs are found from any folder."""

    def placed(variant: Variant) -> Variant:
        if variant.spec is None or Path(variant.spec).suffix not in (".yaml", ".yml"):
            return variant
        return variant.model_copy(update={"spec": str(folder / variant.spec)})

    variants = {name: placed(variant) for name, variant in experiment.variants.items()}
    return experiment.model_copy(update={"common": placed(experiment.common), "variants": variants})
