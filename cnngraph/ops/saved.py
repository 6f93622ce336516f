"""What an op's autograd keeps from forward to backward, in bytes: predicted memory is made of it."""

from __future__ import annotations

from dataclasses import dataclass

from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Batch:
    """How many images a step sees, and how many bytes each of their values takes."""

    size: int
    itemsize: int = 4

    def bytes_of(self, *shapes: TensorShape) -> int:
        """Of one value of each shape."""
        return sum(shape.elements for shape in shapes) * self.size * self.itemsize

    @property
    def accumulated(self) -> int:
        """Bytes of a value that is summed up over many, such as a mean."""
        return max(4, self.itemsize)


@dataclass(frozen=True)
class Saved:
    """What an op keeps for backward, and what else it takes up. Parameters and buffers do not count.

    A value that several ops keep is there once, and so is one that is kept by nobody while it is read.

    Attributes:
        inputs: which inputs are kept, by their indices.
        output: whether the result is.
        extra: bytes of what else is kept, such as the indices of a max pool.
        forward: bytes in use for the time of the op itself, besides its inputs and its result.
        backward: the same in backward, besides what was kept and the gradients of result, inputs and parameters.
        view: the result is the first input's memory, and takes none of its own.
        passes_gradient: which inputs' gradients are the result's, or a part of it, and take none of their own.
    """

    inputs: tuple[int, ...] = ()
    output: bool = False
    extra: int = 0
    forward: int = 0
    backward: int = 0
    view: bool = False
    passes_gradient: tuple[int, ...] = ()


NOTHING = Saved()
INPUT = Saved(inputs=(0,))
OUTPUT = Saved(output=True)
UNCHANGED = Saved(view=True, passes_gradient=(0,))
