"""ONNX, `torch.export` and OpenVINO files of a network, checked by running them.

All start from a program of `torch.export` with an open batch, and with open height and width if
the network accepts other sizes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from cnngraph.atomic_write import atomic_write
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.graph.input_sizes import input_sizes
from cnngraph.lowering.network import Network

_TOLERANCE = 1e-5
_BATCHES = (1, 3)


@dataclass(frozen=True)
class Exported:
    """What an exported file accepts, and how exact it is.

    Attributes:
        path: the file.
        least_size: the least height and width of its input; None if they are fixed.
        error: the largest difference from the network's results, relative to their largest value.
    """

    path: Path
    least_size: int | None
    error: float


def export_program(network: Network, path: Path) -> Exported:
    """Writes a program that `torch.export.load` reads (.pt2).

    Raises `CnngraphError` if the network cannot be exported, or the program computes something
    else.
    """
    program, least = _program(network)

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            torch.export.save(program, stream)

    with _quietly():
        atomic_write(path, write)
        module = torch.export.load(path).module()
    return Exported(path, least, _check(network, path, least, module))


def export_onnx(network: Network, path: Path, opset: int | None = None) -> Exported:
    """Writes an ONNX file, and checks it with ONNX Runtime.

    Args:
        network: it is exported in evaluation mode.
        path: the file to write.
        opset: the version of ONNX' operators; by default that of torch's exporter.

    Raises:
        CnngraphError: a package is missing, the network cannot be exported, or ONNX Runtime
            computes something else.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    onnxruntime = import_module("onnxruntime")
    program, least = _program(network)
    try:
        with _quietly():
            made: Any = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
        atomic_write(path, lambda file: made.save(str(file)))
    except (RuntimeError, ValueError) as error:
        raise CnngraphError(f"torch cannot write ONNX: {_first_line(error)}") from error
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(result) for result in session.run(None, {name: x.numpy()})]

    return Exported(path, least, _check(network, path, least, run))


def export_openvino(network: Network, path: Path) -> Exported:
    """Writes an OpenVINO model (.xml and .bin), and checks it with OpenVINO's runtime.

    Raises `CnngraphError` as `export_onnx` does.
    """
    openvino = _require("openvino")
    program, least = _program(network)
    with _quietly():
        model = openvino.convert_model(program)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    compiled = openvino.compile_model(model, "CPU")

    def run(x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(result) for result in compiled(x.numpy()).values()]

    return Exported(path, least, _check(network, path, least, run))


@contextmanager
def _quietly() -> Generator[None]:
    """Without what exporters deprecate in their own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _require(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        hint = "pip install openvino" if package == "openvino" else 'pip install "cnngraph[export]"'
        raise CnngraphError(f"{package} is not installed: {hint}") from None


def _program(network: Network) -> tuple[ExportedProgram, int | None]:
    """The program of a network, and the least size that it accepts; None if its size is fixed.

    `torch.export` finds out itself whether the size can stay open.
    """
    network.eval()
    rank = len(network.compilation.graph.input)
    if rank == 3 and _takes_larger_sizes(network.compilation.graph):
        sizes = {0: Dim.AUTO, 1: Dim.STATIC} | dict.fromkeys(range(2, rank + 1), Dim.AUTO)
        program = _export(network, sizes)
        if (least := _least_size(program)) is not None:
            return program, least
    return _export(network, {0: Dim.AUTO} | dict.fromkeys(range(1, rank + 1), Dim.STATIC)), None


def _takes_larger_sizes(graph: Graph) -> bool:
    """Whether the network accepts all sizes from the declared one upwards, as far as was tried."""
    sizes = input_sizes(graph)
    if sizes is None:
        return False
    declared, last = max(graph.input.spatial), sizes.range[1]
    return last > declared and {*range(declared, last + 1)} <= {*sizes.valid}


def _export(network: Network, sizes: dict[int, Any]) -> ExportedProgram:
    x = torch.zeros(2, *network.compilation.graph.input)
    try:
        return torch.export.export(network, (x,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # torch raises many types
        raise CnngraphError(f"torch cannot export this network: {_first_line(error)}") from error


def _least_size(program: ExportedProgram) -> int | None:
    """The least height and width that a program accepts; None unless all larger ones work."""
    (name,) = program.graph_signature.user_inputs
    value = next(node for node in program.graph.nodes if node.name == name).meta["val"]
    least = 1
    for size in value.shape[2:]:
        known = None if isinstance(size, int) else program.range_constraints.get(size.node.expr)
        if known is None or known.upper < sys.maxsize // 2:
            return None
        least = max(least, int(known.lower))
    return least


def _check(network: Network, path: Path, least: int | None, run: Callable[[Tensor], Any]) -> float:
    """The error of an exported file for several batches and sizes. Raises `CnngraphError`."""
    shape = network.compilation.graph.input
    shapes: list[tuple[int, ...]] = [tuple(shape)]
    if least is not None:
        shapes.append((shape[0], 2 * shape[1], *shape[2:]))
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in _BATCHES:
        for sizes in shapes:
            x = torch.rand(batch, *sizes, generator=generator)
            with torch.no_grad():
                expected = _listed(network(x))
                found = _listed(run(x))
            for mine, other in zip(expected, found, strict=True):
                scale = max(1.0, float(mine.abs().max()))
                worst = max(worst, float((mine - other).abs().max()) / scale)
    if not worst <= _TOLERANCE:
        raise CnngraphError(f"{path} differs from the network by {worst:.1e} of its largest value")
    return worst


def _listed(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return list(result.values() if isinstance(result, dict) else result)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
