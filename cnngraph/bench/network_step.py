"""One step of a network in one variant: the subject of most workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph.atomic_write import one_line
from cnngraph.bench.devices import captured, device_of
from cnngraph.bench.variants import Variant, Work
from cnngraph.compiler import compile
from cnngraph.errors import CnngraphError
from cnngraph.lowering.network import Network
from cnngraph.options import budget_of

_Held = Callable[[], list[Tensor]]
_Step = tuple[Callable[[], Any], _Held | None]
"""The step, which returns a single number, and the tensors that exist before and after it.

The tensors are None if they are not torch's. Listing them first frees what the step frees first,
because a tensor that is freed without having been allocated during the step is not counted.
"""


class NetworkStep:
    """A variant, ready to run its step.

    The first two steps are not measured: they allocate the optimizer's state, or compile.
    """

    def __init__(self, variant: Variant, work: Work) -> None:
        self._device = device = device_of(work.device, work.threads)
        start = perf_counter()
        settings = device.tune_memory() if variant.tuned else None
        torch.manual_seed(0)
        self._step, self._held = builder_of(variant.name)(work)
        result = float(self._step())
        device.restart_peaks()
        if variant.captured:
            assert self._held is not None
            self._step = captured(self._step, self._held)
        self._step()
        self._last = device.time_of(self._step, 0.0)
        device.rest()
        self.prepared = {
            "seconds": perf_counter() - start,
            "result": result,
            "memory_settings": settings,
            "machine": device.describe(),
        }

    def measure(self, seconds: float) -> float:
        """Seconds of a step: the median of as many as fill `seconds`, at least one."""
        if self._last < seconds:
            self._step()  # wakes the threads and fills the caches that others have used
        self._last = self._device.time_of(self._step, seconds)
        self._device.rest()
        return self._last

    def memory(self) -> dict[str, int | None]:
        """Peaks in bytes: of the process, and of the tensors in a step if they are torch's."""
        process = self._device.peak_of_process()
        if self._held is None:
            return {"process_bytes": process, "tensor_bytes": None, "held_bytes": None}
        held = _bytes_of(self._held())
        tensors = self._device.peak_of_tensors(self._step, held)
        return {"process_bytes": process, "tensor_bytes": tensors, "held_bytes": held}


def _fused(work: Work, memory: str = "fast") -> _Step:
    network = _network(work, memory=memory, batch_size=work.batch_size)
    declared = network.compilation.graph.input
    if budget_of(memory) is not None and work.input != declared:
        raise CnngraphError(f"a memory budget applies to the spec's own input size, {declared}")
    return _torch_step(network, work)


def _inference(work: Work) -> _Step:
    return _torch_step(_network(work).eval().for_inference(), work)


def _eager(work: Work) -> _Step:
    return _torch_step(_network(work, backend="eager"), work)


def _eager_nchw(work: Work) -> _Step:
    return _torch_step(_network(work, backend="eager"), work, torch.contiguous_format)


def _compiled(work: Work, mode: str | None = None) -> _Step:
    network = _network(work, backend="eager")
    if work.mode == "eval":
        import torch._inductor.config as inductor

        inductor.freezing = True  # constant weights, batch norms folded into convolutions
    return _torch_step(network, work, run=torch.compile(network, mode=mode))


def _onnxruntime(work: Work) -> _Step:
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
    except ImportError as error:
        raise CnngraphError(f"{error}: pip install 'cnngraph[bench]'") from None
    if work.dtype != "float32":
        raise CnngraphError("ONNX Runtime has no autocast: float32 only")
    network = _network(work, backend="eager").eval()
    example = _input(work)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(network, (example,), str(file), dynamo=True, verbose=False)
        runtime: Any = onnxruntime
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        session = runtime.InferenceSession(str(file), options, providers=providers)
    values: dict[str, Any] = {session.get_inputs()[0].name: example.numpy()}

    def step() -> float:
        return float(abs(session.run(None, values)[0]).mean())

    return step, None


def _memory_efficient(work: Work) -> _Step:
    network = _network(work, backend="eager")
    graph = network.compilation.graph
    name = graph.name
    if not name.startswith("densenet"):
        raise CnngraphError(f"torchvision has this for DenseNets only, and {name} is none")
    try:
        models: Any = import_module("torchvision").models
    except (ImportError, RuntimeError) as error:  # either, if it was built for another torch
        hint = f"pip install the torchvision that belongs to torch {torch.__version__}"
        raise CnngraphError(f"{one_line(error)}: {hint}") from None
    build = getattr(models, name, None)
    if build is None:
        raise CnngraphError(f"torchvision has no {name}")
    peer = build(memory_efficient=True, num_classes=graph.shape_of(graph.output).channels)
    if _shapes(peer) != _shapes(network):
        raise CnngraphError(f"the weights of torchvision's {name} differ from this spec's")
    peer.load_state_dict(network.state_dict())
    return _torch_step(peer, work)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in network.state_dict().items()}


BUILDERS: dict[str, Callable[[Work], _Step]] = {
    "cnngraph": _fused,
    "default-malloc": _fused,
    "cnngraph-graph": _fused,
    "lean": partial(_fused, memory="lean"),
    "inference": _inference,
    "eager": _eager,
    "eager-nchw": _eager_nchw,
    "eager-graph": _eager,
    "tuned-malloc": _eager,
    "compile": _compiled,
    "compile-max-autotune": partial(_compiled, mode="max-autotune"),
    "onnxruntime": _onnxruntime,
    "torchvision-memory-efficient": _memory_efficient,
}


def builder_of(name: str) -> Callable[[Work], _Step]:
    """The function that builds the step of a variant, which may be a memory budget."""
    return BUILDERS.get(name) or partial(_fused, memory=name)


def _network(work: Work, **options: Any) -> Network:
    return compile(work.spec, dict(work.params), allow_code=work.allow_code, **options)


def _input(work: Work) -> Tensor:
    return torch.randn(work.batch_size, *work.input, generator=torch.Generator().manual_seed(0))


def _torch_step(
    network: nn.Module,
    work: Work,
    memory_format: torch.memory_format = torch.channels_last,
    run: Callable[[Tensor], Any] | None = None,
) -> _Step:
    """The step of a module; `run` is called instead of it."""
    run = network if run is None else run
    network.to(work.device)
    x = _input(work).to(work.device)
    if x.dim() == 4:
        network.to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        x = x.contiguous(memory_format=memory_format)
    network.train(work.mode == "train")

    def evaluate() -> Tensor:
        with torch.no_grad(), _autocast(work):
            return _tensors(run(x))[0].abs().mean()

    if work.mode == "eval":
        return evaluate, lambda: [*network.parameters(), *network.buffers(), x]

    # The rate is low, so that a network that only sees one batch does not diverge. On a GPU the
    # fused update is the fastest, and the only one that can be captured with scaled gradients.
    fused = True if work.device == "cuda" else None
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-5, momentum=0.9, fused=fused)
    scaler = torch.amp.GradScaler(work.device, init_scale=1024.0, enabled=work.dtype == "float16")

    def train() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with _autocast(work):
            loss = sum((_loss(value) for value in _tensors(run(x))), x.new_zeros(()))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    def held() -> list[Tensor]:
        optimizer.zero_grad(set_to_none=True)
        states = chain.from_iterable(state.values() for state in optimizer.state.values())
        momenta = [value for value in states if isinstance(value, Tensor)]
        return [*network.parameters(), *network.buffers(), x, *momenta]

    return train, held


def _autocast(work: Work) -> AbstractContextManager[object]:
    if work.dtype == "float32":
        return nullcontext()
    return torch.autocast(work.device, getattr(torch, work.dtype))


def _loss(output: Tensor) -> Tensor:
    """Cross entropy of (N, classes), with label n mod classes; the mean square of anything else."""
    output = output.float()
    if output.dim() != 2:
        return output.square().mean()
    labels = torch.arange(output.shape[0], device=output.device) % output.shape[1]
    return F.cross_entropy(output, labels)


def _tensors(result: Tensor | dict[str, Tensor]) -> list[Tensor]:
    """The network's result, in training with those of its side heads."""
    return list(result.values()) if isinstance(result, dict) else [result]


def _bytes_of(tensors: list[Tensor]) -> int:
    """Bytes that tensors occupy, counting shared memory once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
