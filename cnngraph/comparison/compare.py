"""`compare`: networks side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnngraph.checker import SpecLike, given_params, read_spec, spec_name
from cnngraph.comparison.networks import Networks, compared, comparison_html, comparison_text
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.report.plots import save_figure


class Comparison(Networks):
    """Networks side by side; a notebook displays them as a table."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Draws a plot as .png or .svg.

        Raises `CnngraphError` if matplotlib is missing, or the file cannot be written.
        """
        from cnngraph.comparison.plot import comparison_figure

        save_figure(comparison_figure(self), Path(path))

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(item.name for item in self.networks)}>"

    def __str__(self) -> str:
        return comparison_text(self)

    def _repr_html_(self) -> str:
        return comparison_html(self)


def compare(
    specs: Sequence[SpecLike],
    params: Mapping[str, Any] | None = None,
    *,
    batch_size: int = 16,
    optimizer: str = "SGD",
    measure: bool = False,
    progress: Callable[[str, float], object] = lambda what, share: None,
    plugins: Sequence[str] = (),
    allow_code: bool = False,
) -> Comparison:
    """Compares networks: layers with weights, accuracy, parameters, MACs, activations and memory.

    Args:
        specs: each as in `cnngraph.check`.
        params: values for the `params` of all specs.
        batch_size: images in a batch, for activations, memory and speed.
        optimizer: of the training step whose memory is predicted.
        measure: also measures images per second on this machine, of `for_inference()`; this loads
            torch.
        progress: callback `(activity, share)`.
        plugins: Python files that register ops, for the processes that measure.
        allow_code: as in `cnngraph.check`.

    Returns:
        The figures of each network; `print` them, or `save` a plot.

    Raises:
        SpecError: a spec is invalid.
        CnngraphError: the optimizer is unknown, or a network cannot be measured.
    """
    if isinstance(specs, str):
        raise CnngraphError('`specs` is a list of specs, such as ["resnet18", "resnet50"]')
    given = given_params(params)
    graphs = [(spec, elaborate_or_raise(read_spec(spec, allow_code), given)) for spec in specs]
    found = [compared(spec_name(spec), graph, batch_size, optimizer) for spec, graph in graphs]
    if not measure:
        return Comparison(tuple(found), batch_size, optimizer)
    from dataclasses import replace

    from cnngraph.bench.variants import Work
    from cnngraph.comparison.speed import measure_speed

    threads = None
    for index, (spec, graph) in enumerate(graphs):
        progress(f"measuring {spec_name(spec)}", index / len(graphs))
        input = tuple(graph.input)
        work = Work(
            os.fspath(spec), given, batch_size, input, mode="eval", plugins=tuple(plugins),
            allow_code=allow_code,
        )  # fmt: skip
        speed, threads = measure_speed(work, graph)
        found[index] = replace(found[index], images_per_second=speed)
    return Comparison(tuple(found), batch_size, optimizer, threads)
