"""ONNX, `torch.export` and OpenVINO files of a network, checked by running them.

All start from a program of `torch.export` with an open batch, and with open sizes if the network
accepts other sizes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from cnngraph.atomic_write import atomic_write
from cnngraph.errors import CnngraphError
from cnngraph.export.accuracy import Run, errors_of
from cnngraph.export.open_sizes import open_programs, reason
from cnngraph.lowering.network import Network

_TOLERANCE = 1e-5
_TIMES_OWN = 4
"""A file may have as many times the network's own rounding error, if that is more."""


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
    if path.suffix != ".xml":
        raise CnngraphError(f"cannot write {path}: the name of an OpenVINO model ends in .xml")

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
    for program, sizes in open_programs(network):
        with TemporaryDirectory() as folder:
            try:
                with _quietly():
                    run = write(program, Path(folder, path.name))
                    error, own = errors_of(network, sizes, run)
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
    raise CnngraphError(f"cannot write {path}: {reason(wrong)}") from wrong


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
