"""What the processes of a distributed training step exchange, and the time that it takes.

The times are predictions by the model of a ring all-reduce (Patarasuk and Yuan, 2009): each of n
devices sends and receives 2 (n - 1) / n times the bytes, in 2 (n - 1) messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnngraph.graph.cost import node_cost
from cnngraph.graph.graph import Graph
from cnngraph.ops.norm import BatchNorm


@dataclass(frozen=True)
class Exchange:
    """What is summed over all processes in a step.

    Attributes:
        gradients: bytes of the gradients, in float32.
        statistics: bytes of synchronised batch norms: forward, in float64, the mean and the square
            of each channel and a count; backward, in float32, two sums for each channel.
        batch_norms: the number of batch norms, each of which exchanges twice.
    """

    gradients: int
    statistics: int
    batch_norms: int

    def seconds(self, devices: int, bandwidth: float, latency: float) -> tuple[float, float]:
        """The predicted time of the exchange of gradients, and of that of statistics.

        Args:
            devices: the number of devices in the ring.
            bandwidth: of the slowest link of the ring, in each direction, in bytes per second.
            latency: of a message, in seconds.
        """
        messages = 2 * (devices - 1) * latency
        share = 2 * (devices - 1) / devices / bandwidth
        statistics = self.statistics * share + 2 * self.batch_norms * messages
        return self.gradients * share + messages, statistics

    def efficiency(
        self, step: float, devices: int, bandwidth: float, latency: float
    ) -> tuple[float, float]:
        """The predicted share of n times the speed of one device that n devices reach.

        Args:
            step: the measured seconds of a step on one device, with its part of the batch.
            devices, bandwidth, latency: see `seconds`.

        Returns:
            The share if no exchange is hidden, and the share if that of the gradients is hidden
            behind the backward pass, two thirds of the step. Statistics cannot be hidden: the next
            layer waits for them.
        """
        gradients, statistics = self.seconds(devices, bandwidth, latency)
        hidden = max(0.0, gradients - step * 2 / 3)
        return step / (step + gradients + statistics), step / (step + hidden + statistics)


def exchange(graph: Graph) -> Exchange:
    """What a step of a network exchanges, if all parameters are trained."""
    norms = [leaf for leaf in graph.leaves() if isinstance(leaf.op, BatchNorm)]
    channels = sum(graph.input_shapes(leaf)[0].channels for leaf in norms)
    statistics = channels * (2 * 8 + 2 * 4) + 8 * len(norms)
    parameters = sum(node_cost(graph, node).params for node in graph.nodes)
    return Exchange(4 * parameters, statistics, len(norms))
