"""Weights of networks: to files and back, over to edited specs, and what fine-tuning does with
them."""

from cnngraph.weights.files import save_weights
from cnngraph.weights.finetune import freeze, parameter_groups, unfreeze
from cnngraph.weights.loading import load_weights
from cnngraph.weights.report import LoadReport, Mismatch, WeightsError

__all__ = [
    "LoadReport",
    "Mismatch",
    "WeightsError",
    "freeze",
    "load_weights",
    "parameter_groups",
    "save_weights",
    "unfreeze",
]
