"""`bench-kernels --layers`: each kernel of a convolution, linear layer or dense block.

On the CPU, csrc/conv2d/choice.cpp chooses a kernel for each result from the sizes alone. These are
the measurements behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnngraph.bench import machine
from cnngraph.bench.networks import Progress
from cnngraph.bench.processes import Workers
from cnngraph.bench.samples import Samples

BATCH = 16
RESULTS = ("output", "input_gradient", "weight_gradient")


@dataclass(frozen=True)
class LayerCase:
    """A layer of a published network.

    Attributes:
        kind: `convolution`, `linear` or `dense_block`.
        inputs, outputs: channels; for a dense block, those of its input and of each layer.
        size: height and width of the input; 1 for a linear layer.
        kernel, stride: of a convolution; the padding is half of the kernel.
        layers: the number of layers of a dense block.
    """

    kind: str
    inputs: int
    outputs: int
    size: int = 1
    kernel: int = 1
    stride: int = 1
    layers: int = 1

    def __str__(self) -> str:
        if self.kind == "linear":
            return f"linear {self.inputs} to {self.outputs}"
        where = f"at {self.size}x{self.size}"
        if self.kind == "dense_block":
            return f"dense block of {self.layers}, {self.inputs} + {self.outputs} {where}"
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel}{stride}, {self.inputs} to {self.outputs} {where}"

    @property
    def results(self) -> tuple[str, ...]:
        """What is measured: a dense block as a whole, other layers result by result."""
        return ("step",) if self.kind == "dense_block" else RESULTS


def _conv(inputs: int, outputs: int, size: int, kernel: int = 1, stride: int = 1) -> LayerCase:
    return LayerCase("convolution", inputs, outputs, size, kernel, stride)


LAYERS = (
    # ResNet-50, and 3x3 convolutions of VGG, GoogLeNet and DenseNet
    _conv(3, 64, 224, 7, 2),
    _conv(64, 64, 56, 3), _conv(128, 128, 28, 3), _conv(256, 256, 14, 3), _conv(512, 512, 7, 3),
    _conv(128, 128, 56, 3, 2), _conv(256, 256, 28, 3), _conv(512, 512, 28, 3),
    _conv(64, 192, 56, 3), _conv(128, 32, 14, 3), _conv(32, 96, 28, 5),
    _conv(64, 64, 56), _conv(64, 256, 56), _conv(256, 64, 56), _conv(256, 512, 56, 1, 2),
    _conv(128, 512, 28), _conv(512, 128, 28), _conv(256, 1024, 14), _conv(1024, 256, 14),
    _conv(512, 2048, 7), _conv(2048, 512, 7),
    # AlexNet and VGG, ResNet-50
    LayerCase("linear", 9216, 4096), LayerCase("linear", 4096, 4096),
    LayerCase("linear", 2048, 1000),
    # DenseNet-121
    LayerCase("dense_block", 64, 32, 56, layers=6),
    LayerCase("dense_block", 256, 32, 14, layers=24),
)  # fmt: skip


@dataclass(frozen=True)
class LayerRow:
    """One result of a layer by every kernel that can compute it.

    Attributes:
        case, result: what was measured.
        flops: of a direct sum, two for each multiply-accumulate.
        kernels: seconds by the name of the kernel; `library` is torch's.
        chosen: the name of the kernel that runs in a network.
    """

    case: LayerCase
    result: str
    flops: int
    kernels: dict[str, Samples]
    chosen: str

    def rate(self, kernel: str) -> float:
        """FLOP/s."""
        return self.flops / self.kernels[kernel].median

    @property
    def speedup(self) -> float:
        """The library's time over that of the chosen kernel."""
        return self.kernels["library"].over(self.kernels[self.chosen])


@dataclass(frozen=True)
class LayerBench:
    """The result of `bench_layers`.

    Attributes:
        peak: FLOP/s of large 3x3 convolutions in the library.
    """

    dtype: str
    rounds: int
    peak: float
    rows: list[LayerRow]
    machine: dict[str, Any]


def bench_layers(
    layers: tuple[LayerCase, ...] = LAYERS,
    dtype: str = "float32",
    batch_size: int = BATCH,
    rounds: int = 5,
    seconds: float = 0.02,
    threads: int | None = None,
    progress: Progress = lambda what, share: None,
) -> LayerBench:
    """Measures the kernels of layers on the CPU in one process, with memory settings.

    The kernels of a result take turns in every round.

    Args:
        layers: the layers to measure.
        dtype: `float32` or `bfloat16`.
        batch_size: number of images.
        rounds: number of rounds.
        seconds: least time of a measurement.
        threads: threads of the process; None for torch's default.
        progress: callback, see `Progress`.

    Raises:
        CnngraphError: there are no compiled kernels.
    """
    found = machine.describe()
    rows: list[LayerRow] = []
    with Workers(threads) as workers:
        worker = workers.start("layers")
        progress("starting", 0)
        found |= worker.ask("prepare_layers", threads=threads, dtype=dtype, batch_size=batch_size)
        peak: float = found.pop("peak")
        others = machine.OtherWork([worker.process_id])
        for index, case in enumerate(layers):
            progress(str(case), index / len(layers))
            for result in case.results:
                answer = worker.ask(
                    "measure", case=vars(case), result=result, rounds=rounds, seconds=seconds
                )
                kernels = {name: Samples(tuple(each)) for name, each in answer["kernels"].items()}
                rows.append(LayerRow(case, result, answer["flops"], kernels, answer["chosen"]))
        found["other_work"] = others.share
    return LayerBench(dtype, rounds, peak, rows, found)
