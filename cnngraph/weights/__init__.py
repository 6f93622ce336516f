"""Weights of networks: saving, loading, transfer to edited specs, and fine-tuning."""

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
