"""ONNX, `torch.export` and OpenVINO files of a network, checked by running them.

All start from a program of `torch.export` with an open batch, and with open sizes if the network
accepts other sizes.
"""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product, starmap
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from cnngraph.atomic_write import atomic_write
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.graph.input_sizes import input_sizes
from cnngraph.lowering.network import Network
from cnngraph.shape import TensorShape

_TOLERANCE = 1e-5
_TIMES_OWN = 4
"""A file may have as many times the network's own rounding error, if that is more."""
_BATCHES = (1, 3)

Run = Callable[..., Any]
Sizes = dict[str, tuple[str, ...]]
"""For each input, by name, the sizes that it may have, without the batch."""


@dataclass(frozen=True)
class Exported:
    """What an exported file accepts, and how exact it is.

    Attributes:
        path: the file.
        inputs: the shape of each input, by name, such as `N x 3 x 32+ x 32+`. `N` is any batch,
            `32+` any size from 32 upwards, and `16k` any multiple of 16.
        error: the largest difference from the network's results in float64, relative to the largest
            value of each.
    """

    path: Path
    inputs: dict[str, str]
    error: float


def export_program(network: Network, path: Path) -> Exported:
    """Writes a program that `torch.export.load` reads (.pt2).

    Raises `CnngraphError` if the network cannot be exported, or the program computes something
    else.
    """

    def write(program: ExportedProgram, file: Path) -> Run:
        with file.open("wb") as stream:
            torch.export.save(program, stream)
        return torch.export.load(file).module()

    return _exported(network, path, write)


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
    names = list(network.compilation.graph.inputs)
    outputs = list(network.compilation.graph.features) or ["output"]

    def write(program: ExportedProgram, file: Path) -> Run:
        made: Any = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
        _rename(made.model.graph, names, outputs)
        if opset not in (None, version := made.model.opset_imports[""]):
            raise CnngraphError(f"torch writes this network with opset {version}, not {opset}")
        made.save(str(file))
        session: Any = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

        def run(*inputs: Tensor) -> list[Tensor]:
            given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
            return [torch.from_numpy(result) for result in session.run(None, given)]

        return run

    return _exported(network, path, write)


def _rename(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names the inputs and outputs of an ONNX graph. Other values with these names get new ones."""
    names = {*inputs, *outputs}
    for value in (value for node in graph for value in node.outputs):
        if value.name in names:
            value.name = f"{value.name}_value"
    for value, name in zip((*graph.inputs, *graph.outputs), (*inputs, *outputs), strict=True):
        value.name = name


def export_openvino(network: Network, path: Path) -> Exported:
    """Writes an OpenVINO model (.xml and .bin), and checks it with OpenVINO's runtime.

    Raises `CnngraphError` as `export_onnx` does.
    """
    openvino = _require("openvino")

    def write(program: ExportedProgram, file: Path) -> Run:
        openvino.save_model(openvino.convert_model(program), str(file), compress_to_fp16=False)
        compiled = openvino.compile_model(str(file), "CPU")

        def run(*inputs: Tensor) -> list[Tensor]:
            found = compiled([x.numpy() for x in inputs])
            return [torch.from_numpy(result) for result in found.values()]

        return run

    return _exported(network, path, write)


def _exported(
    network: Network, path: Path, write: Callable[[ExportedProgram, Path], Run]
) -> Exported:
    """Writes and checks a file: with open sizes where these work, otherwise with the declared.

    `write` writes a program to a file, and loads it.
    """
    network.eval()
    wrong: Exception | None = None
    for program, sizes in _programs(network):
        with TemporaryDirectory() as folder:
            try:
                with _quietly():
                    run = write(program, Path(folder, path.name))
                    error, own = _errors(network, sizes, run)
            except Exception as problem:  # exporters and runtimes raise many types
                wrong = problem
                continue
            if error <= max(_TOLERANCE, _TIMES_OWN * own):
                for file in Path(folder).iterdir():
                    atomic_write(path.with_name(file.name), partial(copyfile, file))
                shapes = {name: " x ".join(("N", *each)) for name, each in sizes.items()}
                return Exported(path, shapes, error)
        wrong = CnngraphError(f"it differs from the network by {error:.1e} of its largest value")
    assert wrong is not None
    raise CnngraphError(f"cannot write {path}: {_reason(wrong)}") from wrong


@contextmanager
def _quietly() -> Generator[None]:
    """Without what exporters deprecate in their own code, and log about it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logging.disable(before)


def _require(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        hint = "pip install openvino" if package == "openvino" else 'pip install "cnngraph[export]"'
        raise CnngraphError(f"{package} is not installed: {hint}") from None


def _programs(network: Network) -> Iterator[tuple[ExportedProgram, Sizes]]:
    """The programs of a network, and the sizes that they accept: open ones first.

    `torch.export` finds out itself whether sizes can stay open.
    """
    graph = network.compilation.graph
    if (open_sizes := _open_sizes(graph)) is not None:
        with suppress(CnngraphError):
            program = _export(network, open_sizes)
            if (sizes := _sizes(graph, program)) is not None:
                yield program, sizes
    fixed = {name: (Dim.STATIC,) * len(shape.spatial) for name, shape in graph.inputs.items()}
    sizes = {name: tuple(map(str, shape)) for name, shape in graph.inputs.items()}
    yield _export(network, fixed), sizes


def _open_sizes(graph: Graph) -> dict[str, tuple[Any, ...]] | None:
    """What `torch.export` is told of the sizes of each input, if they can differ from the declared.

    They can if all larger sizes work, or all multiples of a number, as far as was tried.
    """
    found = input_sizes(graph)
    if found is None:
        return None
    declared = max(size for shape in graph.inputs.values() for size in shape.spatial)
    larger = [size for size in found.valid if size >= declared]
    if len(larger) < 2:
        return None
    step = larger[1] - larger[0]
    if larger != [*range(declared, found.range[1] + 1, step)] or declared % step:
        return None
    if step == 1:
        return {name: (Dim.AUTO,) * len(shape.spatial) for name, shape in graph.inputs.items()}
    if len(graph.inputs) > 1:
        return None
    return {
        name: tuple(step * Dim(f"size{i}") for i in range(len(shape.spatial)))
        for name, shape in graph.inputs.items()
    }


def _export(network: Network, sizes: Mapping[str, tuple[Any, ...]]) -> ExportedProgram:
    inputs = network.compilation.graph.inputs
    examples = tuple(torch.zeros(2, *shape) for shape in inputs.values())
    shapes = [
        dict(
            enumerate((Dim.DYNAMIC, *(Dim.STATIC,) * (len(shape) - len(sizes[name])), *sizes[name]))
        )
        for name, shape in inputs.items()
    ]
    try:
        return torch.export.export(network, examples, dynamic_shapes=tuple(shapes), strict=False)
    except Exception as error:  # torch raises many types
        raise CnngraphError(f"torch cannot export this network: {_reason(error)}") from error


def _sizes(graph: Graph, program: ExportedProgram) -> Sizes | None:
    """The sizes that a program accepts; None unless all sizes from some least one upwards work."""
    values = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
    }
    names = program.graph_signature.user_inputs
    found: Sizes = {}
    for name, user_input in zip(graph.inputs, names, strict=True):
        sizes = [_size(size, program) for size in values[user_input].shape[1:]]
        if not all(sizes):
            return None
        found[name] = tuple(sizes)
    return found


def _size(size: Any, program: ExportedProgram) -> str:
    """Such as `16`, `32+` or `16k`; empty if an open size has an upper limit."""
    if isinstance(size, int):
        return str(size)
    factor, symbol = size.node.expr.as_coeff_Mul()
    known = program.range_constraints.get(symbol)
    if known is None or known.upper < sys.maxsize // 2:
        return ""
    return f"{factor}k" if factor > 1 else f"{known.lower}+"


def _errors(network: Network, sizes: Sizes, run: Run) -> tuple[float, float]:
    """The errors of an exported file and of the network, for several batches and sizes."""
    inputs = network.compilation.graph.inputs
    shapes = [[tuple(shape) for shape in inputs.values()]]
    if any(not size.isdigit() for each in sizes.values() for size in each):
        shapes.append([_larger(shape) for shape in inputs.values()])
    generator = torch.Generator().manual_seed(0)
    exact = deepcopy(network).double()
    error = own = 0.0
    for batch, each in product(_BATCHES, shapes):
        given = [torch.rand(batch, *shape, generator=generator) for shape in each]
        with torch.no_grad():
            mine, other = _listed(network(*given)), _listed(run(*given))
            try:
                best = _listed(exact(*(x.double() for x in given)))
            except RuntimeError:  # a user's module that computes in float32 only
                best = mine
        error = max(error, *starmap(_difference, zip(other, best, strict=True)))
        own = max(own, *starmap(_difference, zip(mine, best, strict=True)))
    return error, own


def _difference(found: Tensor, best: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    if found.shape != best.shape:
        return math.inf
    error = float((found - best).abs().max()) / (float(best.abs().max()) or 1.0)
    return math.inf if math.isnan(error) else error


def _larger(shape: TensorShape) -> tuple[int, ...]:
    """Twice the height, or twice the length of a signal."""
    channels, *spatial = shape
    return (channels, 2 * spatial[0], *spatial[1:]) if spatial else (channels,)


def _listed(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return list(result.values() if isinstance(result, dict) else result)


def _reason(error: BaseException) -> str:
    """The first line of what caused an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
