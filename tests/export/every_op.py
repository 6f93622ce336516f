"""Networks that together have every op of the language: shipped ones, and three for the rest."""

SHIPPED = [
    "alexnet",
    "convnext_tiny",
    "d2l/lenet",
    "darknet53",
    "efficientnet_b0",
    "fpn_resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet20_cifar",
    "shufflenet_v2_x0_5",
    "unet",
]

MAPS = """
cnngraph: 1
name: maps
input: [3, 16, 16]
outputs: [attention, upsampled, probabilities]
graph:
  - normalize: {mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]}
  - pad: {padding: 1, mode: reflect}
  - conv2d: {name: stem, out_channels: 8, kernel_size: 3, bias: false}
  - channel_bias
  - prelu
  - instance_norm: {affine: true}
  - elu
  - group_norm: {num_groups: 2}
  - celu
  - local_response_norm: {size: 3}
  - selu
  - dropout2d
  - parallel:
      name: attention
      merge: multiply
      branches:
        - identity
        - - parallel: [channel_mean, channel_max]
          - conv2d: {name: attend, out_channels: 1, kernel_size: 3, padding: 1}
          - softplus
  - mish
  - global_response_norm
  - group_softmax: 4
  - crop: {size: 12, name: cropped}
  - max_pool2d: 2
  - hardtanh
  - max_unpool2d: {name: unpooled, like: cropped, kernel_size: 2}
  - pixel_unshuffle: 2
  - conv2d: {name: mix, out_channels: 16, kernel_size: 1}
  - glu
  - tanh
  - pixel_shuffle: 2
  - split: {name: upsampled, split_size: [1, 1], index: 1}
  - transpose: {dim0: 2, dim1: 3}
  - flatten: {start_dim: 2}
  - permute: [0, 2, 1]
  - conv1d: {name: positions, out_channels: 144, kernel_size: 1}
  - permute: [0, 2, 1]
  - unflatten: {dim: 2, unflattened_size: [12, 12]}
  - adaptive_max_pool2d: 4
  - flatten
  - linear: {name: fc, out_features: 32}
  - slice: {start: 2, end: -2}
  - alpha_dropout
  - unflatten: [7, 2, 2]
  - global_max_pool2d
  - flatten
  - log_softmax
  - softmax: {name: probabilities}
"""

SIGNALS = """
cnngraph: 1
name: signals
input: [2, 64]
outputs: {means: means, result: .}
graph:
  - conv1d: {name: stem, out_channels: 8, kernel_size: 5, padding: 2}
  - batch_norm: {name: norm}
  - relu
  - max_pool1d: 2
  - dropout1d
  - conv_transpose1d: {name: up, out_channels: 6, kernel_size: 2, stride: 2}
  - avg_pool1d: 2
  - adaptive_avg_pool1d: {output_size: 16, name: smooth}
  - adaptive_max_pool1d: 8
  - global_max_pool1d: {name: largest}
  - global_avg_pool1d: {name: means, from: smooth}
  - add: largest
  - flatten
  - linear: {name: fc, out_features: 3}
"""

VOLUMES = """
cnngraph: 1
name: volumes
input: [2, 8, 8, 8]
outputs: {means: means, result: .}
graph:
  - conv3d: {name: stem, out_channels: 6, kernel_size: 3, padding: 1}
  - batch_norm: {name: norm}
  - relu
  - max_pool3d: 2
  - dropout3d
  - conv_transpose3d: {name: up, out_channels: 4, kernel_size: 2, stride: 2}
  - avg_pool3d: 2
  - adaptive_avg_pool3d: {name: smooth, output_size: 4}
  - adaptive_max_pool3d: 2
  - global_max_pool3d: {name: largest}
  - global_avg_pool3d: {name: means, from: smooth}
  - add: largest
  - flatten
  - linear: {name: fc, out_features: 3}
"""

OTHERS = {"maps": MAPS, "signals": SIGNALS, "volumes": VOLUMES}
