"""Published accuracies of shipped networks."""

from __future__ import annotations

from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.graph import Graph

SOURCE = "of ImageNet-1K, one crop, with torchvision's weights IMAGENET1K_V1"
"""What the figures are, for people."""

TOP1 = {
    "alexnet": 56.522,
    "convnext_small": 83.616,
    "convnext_tiny": 82.520,
    "densenet121": 74.434,
    "densenet161": 77.138,
    "densenet169": 75.600,
    "densenet201": 76.896,
    "efficientnet_b0": 77.692,
    "efficientnet_b1": 78.642,
    "efficientnet_b2": 80.608,
    "efficientnet_b3": 82.008,
    "efficientnet_b4": 83.384,
    "efficientnet_v2_s": 84.228,
    "googlenet": 69.778,
    "inception_v3": 77.294,
    "mnasnet1_0": 73.456,
    "mobilenet_v2": 71.878,
    "mobilenet_v3_large": 74.042,
    "mobilenet_v3_small": 67.668,
    "regnet_x_400mf": 72.834,
    "regnet_y_400mf": 74.046,
    "resnet101": 77.374,
    "resnet152": 78.312,
    "resnet18": 69.758,
    "resnet34": 73.314,
    "resnet50": 76.130,
    "resnext50_32x4d": 77.618,
    "shufflenet_v2_x0_5": 60.552,
    "shufflenet_v2_x1_0": 69.362,
    "squeezenet1_1": 58.178,
    "vgg11": 69.020,
    "vgg11_bn": 70.370,
    "vgg13": 69.928,
    "vgg13_bn": 71.586,
    "vgg16": 71.592,
    "vgg16_bn": 73.360,
    "vgg19": 72.376,
    "vgg19_bn": 74.218,
    "wide_resnet50_2": 78.468,
}
"""Name of a network -> top-1 accuracy in percent, as `_metrics` in torchvision 0.28 states it.

They are those of the first published weights, trained by recipes near to the papers'; later ones
(`IMAGENET1K_V2`) are up to 4.7 points better. Networks that torchvision has no such weights for are
left out.
"""


def published_top1(graph: Graph) -> float | None:
    """The published top-1 accuracy in percent of a network of the zoo.

    None if there is none, or if the network differs from the zoo's, in its number of classes or its
    input as well.
    """
    top1 = TOP1.get(graph.name)
    if top1 is None or str(graph) != str(elaborate_or_raise(read_spec(graph.name))):
        return None
    return top1
