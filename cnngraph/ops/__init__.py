"""What a node may be. To add an op, write its class in the file of its family; nothing else needs to know."""

from cnngraph.ops import activation, conv, linear, norm, pool, regularization, scale, shape
from cnngraph.ops.op import Op
from cnngraph.ops.registry import OPS, find_op, load_plugins, register

__all__ = [
    "OPS",
    "Op",
    "activation",
    "conv",
    "find_op",
    "linear",
    "load_plugins",
    "norm",
    "pool",
    "register",
    "regularization",
    "scale",
    "shape",
]
