"""Numbers for people to read."""

from __future__ import annotations


def short(count: int) -> str:
    """Three digits: `1_498_376_192` -> `1.50 G`. Numbers below a thousand are given in full."""
    for limit, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            value = count / limit
            return f"{value:.{2 - (value >= 10) - (value >= 100)}f} {unit}"
    return str(count)


def size(count: int) -> str:
    """Bytes: `26_499_616` -> `26.5 MB`."""
    for limit, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} bytes"


def duration(seconds: float) -> str:
    """`0.0034` -> `3.4 ms`."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.1f} ms"


def plural(count: int, noun: str) -> str:
    """`1 layer`, `1,234 layers`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
