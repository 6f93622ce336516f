"""`probe`: one training step of a network, measured layer by layer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cnngraph.checker import SpecLike
from cnngraph.compiler import compile
from cnngraph.probing.batch import batch_for
from cnngraph.probing.measurement import Measurement, layers_of_step
from cnngraph.probing.report import probe_html, probe_text
from cnngraph.probing.verdict import Finding, findings_of
from cnngraph.report.plots import save_figure
from cnngraph.weights import load_weights


class Probe(Measurement):
    """What a batch does in a network, forward and backward; a notebook displays it as a table."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What keeps the network from learning: vanishing or exploding gradients, dead units."""
        return findings_of(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Draws a plot as .png or .svg.

        Raises `CnngraphError` if matplotlib is missing, or the file cannot be written.
        """
        from cnngraph.probing.plot import probe_figure

        save_figure(probe_figure(self), Path(path))

    def __repr__(self) -> str:
        problems = ", ".join(finding.problem for finding in self.findings) or "healthy"
        return f"<Probe of {self.network}: {problems}>"

    def __str__(self) -> str:
        return probe_text(self)

    def _repr_html_(self) -> str:
        return probe_html(self)


def probe(
    spec: SpecLike,
    params: Mapping[str, Any] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    allow_code: bool = False,
) -> Probe:
    """Runs one batch forward and backward, and measures each layer.

    Args:
        spec: as in `cnngraph.check`.
        params: values for the spec's `params`.
        data: a source of images, as of `cnngraph train`, or `random` for normal random values and
            random classes. By default `digits` if the network can classify them and scikit-learn
            is installed, otherwise `random`.
        weights: a file for `load_weights`; by default, the weights are initialised.
        batch_size: images in the batch, at least 2, which batch norms need.
        seed: initialises the weights, and chooses the images.
        allow_code: as in `cnngraph.check`.

    Returns:
        Mean and deviation of each layer's output, its share of dead units, and its gradients;
        `findings` says what is wrong, and what usually helps.

    Raises:
        SpecError: the spec is invalid.
        CnngraphError: the data cannot be read or do not fit, or the weights do not fit.
    """
    source = None if data is None else os.fspath(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = compile(spec, params, backend="eager", allow_code=allow_code)
        if weights is not None:
            load_weights(net, weights)
        graph = net.compilation.graph
        batch = batch_for(graph, source, batch_size, seed)
        loss, layers = layers_of_step(net, batch.images, batch.labels)
    return Probe(
        network=graph.name,
        data=batch.name,
        weights="at initialisation" if weights is None else f"weights of {os.fspath(weights)}",
        batch_size=len(batch.images[0]),
        loss=loss,
        layers=layers,
        kinds=frozenset(node.op.kind for node in graph.nodes),
    )
