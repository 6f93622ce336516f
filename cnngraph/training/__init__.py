"""Training, evaluation and prediction, on Lightning Fabric. Needs the extra `cnngraph[train]`."""

from cnngraph.training.data import Data, from_datasets, open_data
from cnngraph.training.evaluation import Evaluation, evaluate
from cnngraph.training.listeners import EpochResult, Listener, Text
from cnngraph.training.loop import Interrupted
from cnngraph.training.prediction import Prediction, predict
from cnngraph.training.recipe import Recipe, load_recipe
from cnngraph.training.report import draw_batch
from cnngraph.training.resuming import resume
from cnngraph.training.run import Run, fit, plan, train

__all__ = [
    "Data",
    "EpochResult",
    "Evaluation",
    "Interrupted",
    "Listener",
    "Prediction",
    "Recipe",
    "Run",
    "Text",
    "draw_batch",
    "evaluate",
    "fit",
    "from_datasets",
    "load_recipe",
    "open_data",
    "plan",
    "predict",
    "resume",
    "train",
]
