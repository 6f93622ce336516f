"""Modules and functions of compiled networks that `torch.nn` lacks."""

from cnngraph.nn.batch_norm_act import batch_norm_act
from cnngraph.nn.batch_norm_act_conv import batch_norm_act_conv
from cnngraph.nn.cat_batch_norm_act import cat_batch_norm_act
from cnngraph.nn.channels import ChannelMax, ChannelMean, GroupSoftmax, Slice, Split
from cnngraph.nn.channels_last import channels_last
from cnngraph.nn.chunk import Chunk
from cnngraph.nn.conv2d import conv2d
from cnngraph.nn.dense_block import dense_block
from cnngraph.nn.dense_layers import dense_layers
from cnngraph.nn.dimensions import Permute, Transpose
from cnngraph.nn.drop_path import DropPath
from cnngraph.nn.global_response_norm import GlobalResponseNorm
from cnngraph.nn.layer_norm2d import LayerNorm2d
from cnngraph.nn.linear import linear
from cnngraph.nn.linear2d import Linear2d
from cnngraph.nn.max_pool2d import max_pool2d
from cnngraph.nn.max_unpool2d import MaxUnpool2d
from cnngraph.nn.normalize import Normalize
from cnngraph.nn.recompute import recomputed
from cnngraph.nn.resize import Crop, CropLike, PadLike, UpsampleLike
from cnngraph.nn.same import (
    AvgPool1dSame,
    AvgPool2dSame,
    AvgPool3dSame,
    Conv1dSame,
    Conv2dSame,
    Conv3dSame,
    MaxPool1dSame,
    MaxPool2dSame,
    MaxPool3dSame,
)
from cnngraph.nn.side_heads import in_training, with_aux

__all__ = [
    "AvgPool1dSame",
    "AvgPool2dSame",
    "AvgPool3dSame",
    "ChannelMax",
    "ChannelMean",
    "Chunk",
    "Conv1dSame",
    "Conv2dSame",
    "Conv3dSame",
    "Crop",
    "CropLike",
    "DropPath",
    "GlobalResponseNorm",
    "GroupSoftmax",
    "LayerNorm2d",
    "Linear2d",
    "MaxPool1dSame",
    "MaxPool2dSame",
    "MaxPool3dSame",
    "MaxUnpool2d",
    "Normalize",
    "PadLike",
    "Permute",
    "Slice",
    "Split",
    "Transpose",
    "UpsampleLike",
    "batch_norm_act",
    "batch_norm_act_conv",
    "cat_batch_norm_act",
    "channels_last",
    "conv2d",
    "dense_block",
    "dense_layers",
    "in_training",
    "linear",
    "max_pool2d",
    "recomputed",
    "with_aux",
]
