"""What an op's autograd keeps for backward, in bytes, from which memory is predicted."""

from __future__ import annotations

from dataclasses import dataclass

from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Batch:
    """A batch of images.

    Attributes:
        size: the number of images.
        itemsize: bytes per value.
    """

    size: int
    itemsize: int = 4

    def bytes_of(self, *shapes: TensorShape) -> int:
        """The bytes of one value of each shape, for the whole batch."""
        return sum(shape.elements for shape in shapes) * self.size * self.itemsize

    @property
    def accumulated(self) -> int:
        """Bytes per value of a sum over many values, such as a mean: at least float32."""
        return max(4, self.itemsize)


@dataclass(frozen=True)
class Saved:
    """What an op keeps for backward, and its temporary memory, without parameters and buffers.

    A value that several ops keep is stored only once.

    Attributes:
        inputs: indices of the inputs that are kept.
        output: whether the result is kept.
        extra: bytes of anything else that is kept, such as the indices of a max pool.
        forward: bytes of temporary memory in forward, besides inputs and result.
        backward: bytes of temporary memory in backward, besides what is kept and the gradients of
            result, inputs and parameters.
        weights: the same if parameters are trained, where that needs more.
        view: whether the result shares the first input's memory.
        passes_gradient: indices of the inputs whose gradients share memory with the result's.
        no_gradient: indices of the inputs that get no gradient: only their size or the order of
            their values counts.
    """

    inputs: tuple[int, ...] = ()
    output: bool = False
    extra: int = 0
    forward: int = 0
    backward: int = 0
    weights: int = 0
    view: bool = False
    passes_gradient: tuple[int, ...] = ()
    no_gradient: tuple[int, ...] = ()

    @property
    def training(self) -> int:
        """Bytes of temporary memory in backward, with the gradients of the parameters."""
        return max(self.backward, self.weights)


NOTHING = Saved()
INPUT = Saved(inputs=(0,))
OUTPUT = Saved(output=True)
UNCHANGED = Saved(view=True, passes_gradient=(0,))
