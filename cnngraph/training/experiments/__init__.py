"""Experiments: variants of a network or of its training, run and compared."""

from cnngraph.training.experiments.experiment import (
    Experiment,
    Variant,
    load_experiment,
    shipped,
)
from cnngraph.training.experiments.results import Result, Results
from cnngraph.training.experiments.runner import run_experiment

__all__ = [
    "Experiment",
    "Result",
    "Results",
    "Variant",
    "load_experiment",
    "run_experiment",
    "shipped",
]
