"""Published figures of classic networks, compared with those computed from the specs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.graph.cost import Cost, cost_of, summarize
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Claim:
    """A published figure, and the same figure computed from a spec.

    Attributes:
        topic: the group of claims that it belongs to.
        quantity: what the figure is.
        claimed: the published figure; None if the source asks for it without giving one.
        found: the computed figure.
        source: the publication.
        note: why the two differ, or what exactly was compared.
    """

    topic: str
    quantity: str
    claimed: float | TensorShape | None
    found: float | TensorShape
    source: str
    note: str = ""

    @property
    def off(self) -> float | None:
        """The relative error of the claim: 0.02 is 2% too high. None if nothing can be compared."""
        if self.claimed is None:
            return None
        if isinstance(self.claimed, tuple) or isinstance(self.found, tuple):
            return 0.0 if self.claimed == self.found else float("inf")
        return self.claimed / self.found - 1


def claims(specs: Path) -> list[Claim]:
    """Every claim, with figures computed from the specs in a folder.

    Raises:
        CnngraphError: the folder lacks a network.
    """
    networks = _Networks(specs)
    return [claim for topic in _TOPICS for claim in topic(networks)]


class _Networks:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.graph = cache(self._graph)

    def _graph(self, name: str, *params: tuple[str, Any]) -> Graph:
        path = self.folder / f"{name}.yaml"
        if not path.is_file():
            problem = f"it has no {name}.yaml"
            raise CnngraphError(f"{self.folder} is not the folder of published networks: {problem}")
        return elaborate_or_raise(read_spec(path), dict(params))

    def cost(self, name: str) -> Cost:
        return summarize(self.graph(name)).total

    def first_linear(self, name: str) -> int:
        """The number of weights of the first linear layer."""
        graph = self.graph(name)
        linear = next(node for node in graph.nodes if node.op.kind == "linear")
        inputs, outputs = graph.input_shapes(linear)[0].elements, linear.shape.elements
        return inputs * outputs


@cache
def _convolutions(
    *kernels: int, channels: tuple[int, int] = (192, 256), size: int = 28, padded: bool = True
) -> Graph:
    """A sequence of convolutions without biases."""
    nodes = "".join(
        f"  - conv2d: {{out_channels: {channels[1]}, kernel_size: {kernel},"
        f" padding: {kernel // 2 if padded else 0}, bias: false}}\n"
        for kernel in kernels
    )
    head = f"cnngraph: 1\nname: net\ninput: [{channels[0]}, {size}, {size}]\ngraph:\n"
    return elaborate_or_raise(read_spec(head + nodes))


def _weights(*kernels: int) -> int:
    return summarize(_convolutions(*kernels, channels=(64, 64))).total.params


def _receptive_field(*kernels: int) -> int:
    """Height of the area that one output depends on: unpadded, inputs minus outputs plus one."""
    graph = _convolutions(*kernels, channels=(1, 1), padded=False)
    return graph.input[-1] - graph.shape_of(graph.output)[-1] + 1


_SZEGEDY = "Szegedy et al., Going Deeper with Convolutions"
_HE = "He et al., Deep Residual Learning"
_SIMONYAN = "Simonyan and Zisserman, Very Deep Convolutional Networks"
_LECUN = "LeCun et al., Gradient-Based Learning"
_KRIZHEVSKY = "Krizhevsky et al., ImageNet Classification"
_REGNET = "Radosavovic et al., Designing Network Design Spaces"
_D2L = "Dive into Deep Learning"


def _googlenet_against_alexnet(networks: _Networks) -> Iterator[Claim]:
    alexnet, googlenet = networks.cost("alexnet").params, networks.cost("googlenet").params
    quantity = "AlexNet's parameters per parameter of GoogLeNet"
    note = "the usual 12 is 60 M / 5 M; with classifier and batch norms GoogLeNet has 6.6 M"
    topic, ratio = "GoogLeNet against AlexNet", alexnet / googlenet
    yield Claim(topic, quantity, 12, ratio, _SZEGEDY, note)


def _first_inception_block(networks: _Networks) -> Iterator[Claim]:
    topic = "The first Inception block against one convolution, 192 to 256 channels on 28x28"
    block = cost_of(networks.graph("googlenet", ("large_kernel", 5)), "inception3a")
    note = "with the batch norms' 1,056"
    yield Claim(topic, "parameters of the block", 0.16e6, block.params, _D2L, note)
    yield Claim(topic, "multiply-accumulates of the block", 128e6, block.macs, _D2L)
    for kernel, params, macs in ((3, 0.44e6, 346e6), (5, 1.22e6, 963e6)):
        cost = summarize(_convolutions(kernel)).total
        yield Claim(topic, f"parameters of one {kernel}x{kernel}", params, cost.params, _D2L)
        yield Claim(topic, f"multiply-accumulates of one {kernel}x{kernel}", macs, cost.macs, _D2L)


def _first_dense_layers(networks: _Networks) -> Iterator[Claim]:
    topic, source = "Weights of the first dense layer", f"{_D2L}, Network in Network"
    for name, title, claimed in (
        ("d2l/lenet", "LeNet", 48_000),
        ("d2l/alexnet", "AlexNet", 26_214_400),
        ("vgg11", "VGG", 102_760_448),
    ):
        yield Claim(topic, title, claimed, networks.first_linear(name), source)


def _small_kernels(networks: _Networks) -> Iterator[Claim]:
    topic = "A sequence of small kernels against a large one"
    for small, large, weights in (((3, 3), 5, 25 / 18), ((3, 3, 3), 7, 49 / 27)):
        name = f"{len(small)} kernels of 3x3"
        yield Claim(topic, f"receptive field of {name}", large, _receptive_field(*small), _SIMONYAN)
        yield Claim(
            topic,
            f"receptive field of one {large}x{large}",
            large,
            _receptive_field(large),
            _SIMONYAN,
        )
        ratio = _weights(large) / _weights(*small)
        yield Claim(
            topic, f"weights of one {large}x{large} per weight of {name}", weights, ratio, _SIMONYAN
        )


def _shapes_of_vgg(networks: _Networks) -> Iterator[Claim]:
    topic, graph = "VGG-11's shapes", networks.graph("d2l/vgg11")
    blocks = [(64, 112), (128, 56), (256, 28), (512, 14), (512, 7)]
    for index, (channels, size) in enumerate(blocks):
        claimed, found = TensorShape((channels, size, size)), graph.scopes[str(index)].shape
        yield Claim(topic, f"after block {index + 1}", claimed, found, _D2L)
    flat = next(node for node in graph.nodes if node.op.kind == "flatten")
    yield Claim(topic, "flattened", TensorShape((25088,)), flat.shape, _D2L)


def _lenet_to_alexnet(networks: _Networks) -> Iterator[Claim]:
    topic = "From LeNet to AlexNet"
    lenet, alexnet = networks.cost("d2l/lenet"), networks.cost("alexnet")
    note = "the later form with one tower"
    yield Claim(topic, "LeNet's parameters", 60e3, lenet.params, _LECUN)
    yield Claim(topic, "AlexNet's parameters", 60e6, alexnet.params, _KRIZHEVSKY, note)
    yield Claim(topic, "ratio of parameters", 1000, alexnet.params / lenet.params, "the two above")
    yield Claim(topic, "ratio of multiply-accumulates", None, alexnet.macs / lenet.macs, _D2L)


def _published_figures(networks: _Networks) -> Iterator[Claim]:
    topic = "Published figures"
    for name, params, macs, source, note in _FIGURES:
        cost = networks.cost(name)
        if params is not None:
            yield Claim(topic, f"{name}: parameters", params, cost.params, source, note)
        if macs is not None:
            yield Claim(topic, f"{name}: multiply-accumulates", macs, cost.macs, source, note)


_SHUFFLENET = "Ma et al., ShuffleNet V2"
_EFFICIENTNET = "Tan and Le, EfficientNet"
_CONVNEXT = "Liu et al., A ConvNet for the 2020s"
_MOBILENETV3 = "Howard et al., Searching for MobileNetV3"
_STRIDE = "the paper strides in the first 1x1, the usual weights in the 3x3"
_SIZE = "the paper's images have 260x260 pixels, torchvision's 288x288"
_LAST_STAGE = "the paper's last stage has 384 channels, torchvision's 400"
_FIGURES: tuple[tuple[str, float | None, float | None, str, str], ...] = (
    ("vgg16", 138e6, None, _SIMONYAN, ""),
    ("vgg19", 144e6, 19.6e9, f"{_SIMONYAN}; {_HE}", ""),
    ("googlenet", None, 1.5e9, _SZEGEDY, ""),
    (
        "inception_v3", 25e6, 5e9, "Szegedy et al., Rethinking the Inception Architecture",
        "published as less than 25 M and about 5 G",
    ),
    ("resnet18", None, 1.8e9, _HE, ""),
    ("resnet34", None, 3.6e9, _HE, ""),
    ("resnet50", None, 3.8e9, _HE, _STRIDE),
    ("resnet101", None, 7.6e9, _HE, _STRIDE),
    ("resnet152", None, 11.3e9, _HE, _STRIDE),
    ("resnet20_cifar", 0.27e6, None, _HE, ""),
    ("resnet56_cifar", 0.85e6, None, _HE, ""),
    ("resnet110_cifar", 1.7e6, None, _HE, ""),
    ("resnet1202_cifar", 19.4e6, None, _HE, ""),
    ("resnet1001_cifar", 10.2e6, None, "He et al., Identity Mappings", ""),
    ("resnext50_32x4d", 25.0e6, None, "Xie et al., Aggregated Residual Transformations", ""),
    ("densenet201", 20e6, None, "Huang et al., Densely Connected Convolutional Networks", ""),
    ("mobilenet_v2", 3.4e6, 300e6, "Sandler et al., MobileNetV2", ""),
    ("efficientnet_b0", 5.3e6, 0.39e9, _EFFICIENTNET, ""),
    ("shufflenet_v2_x1_0", 2.3e6, 146e6, _SHUFFLENET, ""),
    ("shufflenet_v2_x0_5", 1.4e6, 41e6, _SHUFFLENET, ""),
    ("regnet_y_400mf", 4.3e6, 0.4e9, _REGNET, ""),
    ("regnet_x_400mf", 5.2e6, 0.4e9, _REGNET, _LAST_STAGE),
    ("convnext_tiny", 29e6, 4.5e9, _CONVNEXT, ""),
    ("convnext_small", 50e6, 8.7e9, _CONVNEXT, ""),
    ("mobilenet_v3_large", 5.4e6, 219e6, _MOBILENETV3, ""),
    ("mobilenet_v3_small", 2.5e6, 56e6, _MOBILENETV3, ""),
    ("efficientnet_b1", 7.8e6, 0.70e9, _EFFICIENTNET, ""),
    ("efficientnet_b2", 9.2e6, 1.0e9, _EFFICIENTNET, _SIZE),
    ("efficientnet_b3", 12e6, 1.8e9, _EFFICIENTNET, ""),
    ("efficientnet_b4", 19e6, None, _EFFICIENTNET, ""),
    ("efficientnet_v2_s", 22e6, None, "Tan and Le, EfficientNetV2", ""),
    ("seresnet50", None, 3.87e9, "Hu et al., Squeeze-and-Excitation Networks", _STRIDE),
    ("res2net50", 25.70e6, 4.2e9, "Gao et al., Res2Net", ""),
    ("xception", 22_855_952, None, "Chollet, Xception", ""),
    ("dla34", 15.8e6, 3.1e9, "Yu et al., Deep Layer Aggregation", ""),
    (
        "darknet53", None, 9.35e9, "Redmon and Farhadi, YOLOv3",
        "published as 18.7 billion operations, two for each multiply-accumulate",
    ),
    ("cspdarknet53", 27.6e6, None, "Bochkovskiy et al., YOLOv4", ""),
)  # fmt: skip
"""Spec, published parameters and multiply-accumulates, source, and why the figures may differ."""

_TOPICS = (
    _googlenet_against_alexnet,
    _first_inception_block,
    _first_dense_layers,
    _small_kernels,
    _shapes_of_vgg,
    _lenet_to_alexnet,
    _published_figures,
)
