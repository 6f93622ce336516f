"""Which positions of its input an op reads, along one axis; receptive fields are made of these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import floor, gcd, lcm

Span = tuple[int, int]
"""The first and the last of some positions."""


@dataclass(frozen=True)
class Reach:
    """The positions that each position of a value reads.

    Position `i` reads the positions of `spans[i % period]`, moved by `advance` for each whole
    period before it; `period` is `len(spans)`. Negative positions are padding.

    Attributes:
        advance: how far the positions move in one period.
        spans: the positions that each position of a period reads, None if it reads nothing.
    """

    advance: int
    spans: tuple[Span | None, ...]

    @property
    def period(self) -> int:
        """After how many positions the spans repeat."""
        return len(self.spans)

    @property
    def size(self) -> int:
        """The largest number of positions between the first and the last that are read, both
        included."""
        return max((last - first + 1 for first, last in filter(None, self.spans)), default=0)

    @property
    def stride(self) -> Fraction:
        """How far the positions move from one to the next, on average."""
        return Fraction(self.advance, self.period)

    @property
    def offset(self) -> int:
        """The first position that position 0 reads; it is negative in the padding."""
        return min((first for first, _ in filter(None, self.spans[:1])), default=0)

    def at(self, position: int) -> Span | None:
        """The first and the last position that `position` reads."""
        periods, phase = divmod(position, self.period)
        span, moved = self.spans[phase], periods * self.advance
        return span and (span[0] + moved, span[1] + moved)

    def after(self, before: Reach) -> Reach:
        """What is read through a value that itself reads with `before`."""
        times = before.period // gcd(before.period, self.advance)
        spans = [before.over(self.at(phase)) for phase in range(times * self.period)]
        return _of(times * self.advance // before.period * before.advance, spans)

    def over(self, span: Span | None) -> Span | None:
        """What the positions of a span read, together."""
        if span is None:
            return None
        first, last = span
        if last - first >= 2 * self.period:  # the ends read the farthest
            edges = (*range(first, first + self.period), *range(last - self.period + 1, last + 1))
        else:
            edges = range(first, last + 1)
        return _hull(map(self.at, edges))

    def union(self, other: Reach, length: int) -> Reach:
        """What a value reads that is made of two, of `length` positions each.

        If the two move at different speeds, it is exact for these positions only.
        """
        period = lcm(self.period, other.period)
        advance = self.advance * period // self.period
        if advance != other.advance * period // other.period:
            period, advance = length, round(max(self.stride, other.stride) * length)
        return _of(advance, [_hull((self.at(i), other.at(i))) for i in range(period)])


def _hull(spans: Iterable[Span | None]) -> Span | None:
    found = [span for span in spans if span is not None]
    return (min(span[0] for span in found), max(span[1] for span in found)) if found else None


def _of(advance: int, spans: list[Span | None]) -> Reach:
    """The reach with the shortest period that is the same."""
    reach = Reach(advance, tuple(spans))
    for period in range(1, len(spans)):
        if len(spans) % period == 0 and advance * period % len(spans) == 0:
            shorter = Reach(advance * period // len(spans), reach.spans[:period])
            if all(shorter.at(i) == span for i, span in enumerate(spans)):
                return shorter
    return reach


SAME = Reach(1, ((0, 0),))
"""Each position reads the same one."""

FIRST = Reach(0, ((0, 0),))
"""Each position reads position 0, the only one."""


def window(kernel: int, stride: int = 1, before: int = 0, dilation: int = 1) -> Reach:
    """A sliding window, with `before` positions of padding before the first."""
    return Reach(stride, ((-before, dilation * (kernel - 1) - before),))


def transposed_window(kernel: int, stride: int = 1, before: int = 0, dilation: int = 1) -> Reach:
    """A transposed window: what a window moves to these positions."""
    spans: list[Span | None] = []
    for phase in range(stride):
        moved = [phase + before - dilation * index for index in range(kernel)]
        spans.append(_hull((at // stride, at // stride) for at in moved if at % stride == 0))
    return _of(1, spans)


def bins(length: int, count: int) -> Reach:
    """`count` windows that cover `length` positions, as of `torch.nn.AdaptiveAvgPool2d`."""
    return _of(
        length, [(i * length // count, -(-(i + 1) * length // count) - 1) for i in range(count)]
    )


def resized(scale: Fraction, shift: Fraction, before: int, after: int) -> Reach:
    """Interpolation: position `i` is at `i * scale + shift` of the input.

    It reads `before` positions before the position that is at or before this place, and `after`
    after it; only this position itself if it is exactly there, or if both are 0.
    """
    spans: list[Span | None] = []
    for position in range(scale.denominator):
        place = position * scale + shift
        exact = place.denominator == 1
        first = floor(place)
        spans.append((first, first) if exact else (first - before, first + after))
    return _of(scale.numerator, spans)
