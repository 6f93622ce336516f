"""Patterns of paths, such as `fc`, `layer4.*` or `*.bn?`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cnngraph.errors import closest


def matches(path: str, pattern: str) -> bool:
    """Whether the pattern matches the path or a module around it. `*` also matches dots."""
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def unmatched(pattern: str, paths: Sequence[str]) -> str | None:
    """What is wrong with a pattern that matches none of the paths; None if it matches one."""
    if any(matches(path, pattern) for path in paths):
        return None
    modules = dict.fromkeys(path.rsplit(".", count)[0] for count in range(1, 9) for path in paths)
    ending = ".*" if pattern.endswith(".*") else ""
    near = closest(pattern.removesuffix(".*"), [*modules, *paths])
    tops = ", ".join(dict.fromkeys(path.split(".")[0] for path in paths))
    help = f"did you mean `{near}{ending}`?" if near else f"there are: {tops}"
    return f"the pattern `{pattern}` matches nothing; {help}"
