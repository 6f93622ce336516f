"""One step of a network, as a contender runs it: the subject of most workers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph.atomic_write import one_line
from cnngraph.bench.devices import captured, device_of
from cnngraph.bench.variants import Contender, Work
from cnngraph.compiler import compile
from cnngraph.errors import CnngraphError
from cnngraph.lowering.network import Network
from cnngraph.options import budget_of

WARM_UP = 2
"""Steps before the first that is measured: the first of all makes the optimizer's state, or compiles."""


class NetworkStep:
    """A contender, ready to run its step."""

    def __init__(self, contender: Contender, work: Work) -> None:
        if work.mode not in contender.modes:
            raise CnngraphError(f"it runs in {' and '.join(contender.modes)} mode only")
        self._device = device = device_of(work.device, work.threads)
        start = perf_counter()
        settings = device.tune_memory() if contender.tuned else None
        torch.manual_seed(0)
        self._step, self._held = builder_of(contender.name)(work)
        result = float(self._step())
        device.restart_peaks()
        if contender.captured:
            assert self._held is not None
            self._step = captured(self._step, self._held)
        for _ in range(WARM_UP - 1):
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
        """A step's time: the median of as many as fill `seconds`, or of one that takes longer."""
        if self._last < seconds:
            self._step()  # wakes threads and fills caches that the others used meanwhile
        self._last = self._device.time_of(self._step, seconds)
        self._device.rest()
        return self._last

    def memory(self) -> dict[str, int | None]:
        """Bytes at the peak of a step: of the process, and of torch's tensors, where those are torch's."""
        process = self._device.peak_of_process()
        if self._held is None:
            return {"process_bytes": process, "tensor_bytes": None, "held_bytes": None}
        held = _bytes_of(self._held())
        tensors = self._device.peak_of_tensors(self._step, held)
        return {"process_bytes": process, "tensor_bytes": tensors, "held_bytes": held}


_Held = Callable[[], list[Tensor]]
_Built = tuple[Callable[[], Any], _Held | None]
"""The step, whose result is one number, and the tensors that are there before and after it, where they are torch's.

To list them frees what the step frees first: what is freed without having been seen allocated is not reported.
"""


def _fused(work: Work, memory: str = "fast") -> _Built:
    network = compile(work.spec, dict(work.params), memory=memory, batch_size=work.batch_size)
    declared = network.compilation.graph.input
    if budget_of(memory) is not None and work.input != declared:
        raise CnngraphError(f"a budget is for inputs of the spec's own size, {declared}")
    return _torch_step(network, work)


def _inference(work: Work) -> _Built:
    return _torch_step(compile(work.spec, dict(work.params), mode="inference"), work)


def _eager(work: Work) -> _Built:
    return _torch_step(_network(work, "eager"), work)


def _eager_nchw(work: Work) -> _Built:
    return _torch_step(_network(work, "eager"), work, torch.contiguous_format)


def _compiled(work: Work, mode: str | None = None) -> _Built:
    network = _network(work, "eager")
    if work.mode == "eval":
        import torch._inductor.config as inductor

        inductor.freezing = True  # weights as constants, batch norms folded into convolutions
    return _torch_step(network, work, run=torch.compile(network, mode=mode))


def _onnxruntime(work: Work) -> _Built:
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise CnngraphError(f"{error}: pip install 'cnngraph[bench]'") from None
    if work.dtype != "float32":
        raise CnngraphError("it has no autocast: float32 only")
    network = _network(work, "eager").eval()
    example = _input(work)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(network, (example,), str(file), dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    values = {session.get_inputs()[0].name: example.numpy()}

    def step() -> float:
        return float(abs(session.run(None, values)[0]).mean())

    return step, None


def _memory_efficient(work: Work) -> _Built:
    network = _network(work, "eager")
    name, graph = network.compilation.graph.name, network.compilation.graph
    if not name.startswith("densenet"):
        raise CnngraphError(f"it runs torchvision's DenseNets only, and {name} is none")
    try:
        from torchvision import models  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # one that was built for another torch raises either
        raise CnngraphError(
            f"{one_line(error)}: pip install the torchvision that goes with torch {torch.__version__}"
        ) from None
    build = getattr(models, name, None)
    if build is None:
        raise CnngraphError(f"torchvision has no {name}")
    peer = build(memory_efficient=True, num_classes=graph.shape_of(graph.output).channels)
    if _shapes(peer) != _shapes(network):
        raise CnngraphError(f"the weights of torchvision's {name} are not those of this spec")
    peer.load_state_dict(network.state_dict())
    return _torch_step(peer, work)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in network.state_dict().items()}


BUILDERS: dict[str, Callable[[Work], _Built]] = {
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


def builder_of(name: str) -> Callable[[Work], _Built]:
    """What makes the step of a contender, which may be a budget of memory."""
    return BUILDERS.get(name) or partial(_fused, memory=name)


def _network(work: Work, backend: Any) -> Network:
    return compile(work.spec, dict(work.params), backend=backend)


def _input(work: Work) -> Tensor:
    return torch.randn(work.batch_size, *work.input, generator=torch.Generator().manual_seed(0))


def _torch_step(
    network: nn.Module,
    work: Work,
    memory_format: torch.memory_format = torch.channels_last,
    run: Callable[[Tensor], Any] | None = None,
) -> _Built:
    """The step of a module; `run` is what is called in its place."""
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

    # A rate this low keeps a network that sees one batch over and over from reaching infinity. On a GPU a fused update
    # is the fastest, and the only one that can be captured with scaled gradients.
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
        own = [value for value in states if isinstance(value, Tensor)]
        return [*network.parameters(), *network.buffers(), x, *own]

    return train, held


def _autocast(work: Work) -> AbstractContextManager[object]:
    return nullcontext() if work.dtype == "float32" else torch.autocast(work.device, getattr(torch, work.dtype))


def _loss(output: Tensor) -> Tensor:
    """Of classes, against labels that go through them; of anything else, its mean square."""
    output = output.float()
    if output.dim() != 2:
        return output.square().mean()
    labels = torch.arange(output.shape[0], device=output.device) % output.shape[1]
    return F.cross_entropy(output, labels)


def _tensors(result: Any) -> list[Tensor]:
    """What a network returned, or its result and its side heads' in training."""
    return list(result.values()) if isinstance(result, dict) else [result]


def _bytes_of(tensors: list[Tensor]) -> int:
    """What tensors occupy, those that share memory counted once."""
    return sum({(s := tensor.untyped_storage()).data_ptr(): s.nbytes() for tensor in tensors}.values())
