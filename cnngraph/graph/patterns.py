"""Patterns of paths, such as `fc`, `layer4.*` or `*.bn?`."""

from __future__ import annotations

from fnmatch import fnmatchcase


def matches(path: str, pattern: str) -> bool:
    """Whether the pattern matches the path or a module around it. `*` also matches dots."""
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
