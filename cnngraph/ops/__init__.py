"""The ops of the language. To add one, write its class in the file of its family."""

from cnngraph.ops import (
    activation,
    adaptive_pool,
    channels,
    conv,
    linear,
    module,
    norm,
    pool,
    regularization,
    resize,
    scale,
    shape,
)
from cnngraph.ops.op import Op
from cnngraph.ops.registry import OPS, find_op, load_plugin_file, load_plugins, register

__all__ = [
    "OPS",
    "Op",
    "activation",
    "adaptive_pool",
    "channels",
    "conv",
    "find_op",
    "linear",
    "load_plugin_file",
    "load_plugins",
    "module",
    "norm",
    "pool",
    "register",
    "regularization",
    "resize",
    "scale",
    "shape",
]
