"""Modules and functions of compiled networks that `torch.nn` lacks."""

from cnngraph.nn.batch_norm_act import batch_norm_act
from cnngraph.nn.batch_norm_act_conv import batch_norm_act_conv
from cnngraph.nn.cat_batch_norm_act import cat_batch_norm_act
from cnngraph.nn.channels_last import channels_last
from cnngraph.nn.chunk import Chunk
from cnngraph.nn.conv2d import conv2d
from cnngraph.nn.dense_block import dense_block
from cnngraph.nn.drop_path import DropPath
from cnngraph.nn.layer_norm2d import LayerNorm2d
from cnngraph.nn.linear import linear
from cnngraph.nn.linear2d import Linear2d
from cnngraph.nn.max_pool2d import max_pool2d
from cnngraph.nn.normalize import Normalize
from cnngraph.nn.recompute import recomputed
from cnngraph.nn.side_heads import in_training, with_aux

__all__ = [
    "Chunk",
    "DropPath",
    "LayerNorm2d",
    "Linear2d",
    "Normalize",
    "batch_norm_act",
    "batch_norm_act_conv",
    "cat_batch_norm_act",
    "channels_last",
    "conv2d",
    "dense_block",
    "in_training",
    "linear",
    "max_pool2d",
    "recomputed",
    "with_aux",
]
