"""Times the layers of a network on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnngraph.checker import SpecLike

_ROUNDS = 3


def seconds_by_node(
    spec: SpecLike, params: Mapping[str, Any] | None = None, allow_code: bool = False
) -> dict[str, float]:
    """Seconds of each layer for one image, in evaluation, by plain PyTorch: the least of three.

    Layers without a module of their own, such as a sum, are left out.
    """
    from time import perf_counter

    import torch

    from cnngraph.compiler import compile

    net = compile(spec, params, backend="eager", allow_code=allow_code).eval()
    graph = net.compilation.graph
    started: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def before(path: str) -> Any:
        def start(*_: Any) -> None:
            started[path] = perf_counter()

        return start

    def after(path: str) -> Any:
        def stop(*_: Any) -> None:
            spent = perf_counter() - started[path]
            seconds[path] = min(spent, seconds.get(path, spent))

        return stop

    paths = {node.path for node in graph.nodes}
    for path, module in net.named_modules():
        if path in paths:
            module.register_forward_pre_hook(before(path))
            module.register_forward_hook(after(path))
    images = [torch.zeros(1, *shape) for shape in graph.inputs.values()]
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            net(*images)
    return seconds
