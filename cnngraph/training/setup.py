"""What a run starts from: the data, and the network for it, with its weights and frozen parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cnngraph.checker import SpecLike, given_params, read_spec
from cnngraph.compiler import compile_graph
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.lowering.network import Network
from cnngraph.options import Options, Strategy
from cnngraph.shape import TensorShape
from cnngraph.spec.spec import Spec
from cnngraph.training.augmentation import Normalisation, measure
from cnngraph.training.data import Data, Progress, from_datasets, open_data
from cnngraph.training.data.loader import seed_everything
from cnngraph.training.fine_tuning import apply_freezing, load_pretrained, require_trainable
from cnngraph.training.planning import Plan, plan_of
from cnngraph.training.recipe import Recipe

DataLike = Any
"""A source for `open_data`, a `Data`, a `LightningDataModule`, or two datasets in a tuple."""


@dataclass(frozen=True)
class Setup:
    """A run before its first step.

    Attributes:
        net: the network, on the CPU.
        strategy: what the processes of a run exchange.
        notes: what was done to load the weights.
    """

    net: Network
    data: Data
    recipe: Recipe
    normalisation: Normalisation
    device: torch.device
    plan: Plan
    notes: str = ""
    strategy: Strategy = "ddp"


def prepare(
    spec: SpecLike | Network,
    data: DataLike,
    recipe: Recipe,
    *,
    params: Mapping[str, Any] | None = None,
    classes: int | None = None,
    weights: str | Path | None = None,
    options: Options | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    progress: Progress | None = None,
    normalisation: Normalisation | None = None,
    allow_code: bool = False,
    strategy: Strategy = "ddp",
) -> Setup:
    """Opens the data, and compiles the network for it; see `fit`.

    The normalisation is measured unless it is given.
    """
    place = device_of(device)
    if recipe.precision == "float16" and place.type != "cuda":
        raise CnngraphError("`precision: float16` needs a GPU; on the CPU use bfloat16 or float32")
    notes = ""
    if isinstance(spec, Network):
        net = spec
        recipe.require_network(net.compilation.graph.name)
        opened = _opened(data, net.compilation.graph.input, skip_bad, progress)
        _require_classes(net.compilation.graph, opened)
    else:
        source, given = read_spec(spec, allow_code), dict(given_params(params))
        recipe.require_network(source.name)
        if classes is not None:
            given = _with_classes(source, given, classes)
        opened = _opened(data, elaborate_or_raise(source, given).input, skip_bad, progress)
        if "num_classes" in source.params and "num_classes" not in given:
            given["num_classes"] = len(opened.classes)
        graph = elaborate_or_raise(source, given)
        _require_classes(graph, opened)
        seed_everything(recipe.seed)
        options = replace(options or Options(), batch_size=recipe.batch_size)
        net = compile_graph(source, given, graph, options)
        if weights is not None:
            notes = load_pretrained(net, weights)
    require_trainable(net, recipe)
    apply_freezing(net, recipe, 0)
    plan = plan_of(net, opened, recipe, place, strategy)
    normalisation = normalisation or measure(opened.train)
    return Setup(net, opened, recipe, normalisation, place, plan, notes, strategy)


def device_of(name: str) -> torch.device:
    """The device called `cpu`, `cuda` or `auto`. Raises `CnngraphError` if there is no GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise CnngraphError(f"torch {torch.__version__} finds no GPU here: use `cpu`")
    return torch.device(name)


def open_for(net: Network, data: DataLike, skip_bad: bool = False) -> Data:
    """The data, with images of the network's input. Raises `CnngraphError` if it cannot be."""
    return _opened(data, net.compilation.graph.input, skip_bad, None)


def _opened(data: DataLike, shape: TensorShape, skip_bad: bool, progress: Progress | None) -> Data:
    if isinstance(data, Data):
        return data
    if hasattr(data, "train_dataloader"):
        data.prepare_data()
        data.setup("fit")
        data = (data.train_dataloader().dataset, data.val_dataloader().dataset)
    if isinstance(data, tuple):
        train, val = data  # pyright: ignore[reportUnknownVariableType]
        return from_datasets(train, val, shape)
    return open_data(data, shape, skip_bad=skip_bad, progress=progress)


def _with_classes(spec: Spec, params: dict[str, Any], classes: int) -> dict[str, Any]:
    if "num_classes" not in spec.params:
        raise CnngraphError(f"`{spec.name}` has no param `num_classes` for the number of classes")
    if params.get("num_classes", classes) != classes:
        raise CnngraphError(f"the classes are {classes}, but num_classes={params['num_classes']}")
    return {**params, "num_classes": classes}


def _require_classes(graph: Graph, data: Data) -> None:
    """Raises unless the network has one result per class of the data."""
    for path in (graph.output, *graph.aux.values()):
        shape = graph.by_path[path].shape
        if len(shape) != 1:
            raise CnngraphError(f"`{graph.name}` is no classifier: its result `{path}` is {shape}")
        if shape.channels != len(data.classes):
            raise CnngraphError(
                f"{data.name} has {len(data.classes)} classes, but `{graph.name}` has"
                f" {shape.channels} results in `{path}`"
            )
