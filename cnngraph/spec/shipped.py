"""The specs that are installed with cnngraph, by name: `resnet50`, `d2l/lenet`."""

from __future__ import annotations

import os
from pathlib import Path

from cnngraph.errors import CnngraphError, Notes, did_you_mean, listing

_PACKAGE = Path(__file__).parent.parent
_FOLDERS = (_PACKAGE / "specs", _PACKAGE.parent / "specs")
"""The folder of an installation, and the one of the repository, which setup.py copies there."""

_BLOCKS = "blocks"
"""The subfolder of block libraries, which are not networks."""
_MOST_NAMES = 5
"""The most names that a hint lists."""


def specs_folder() -> Path:
    """The folder of the shipped specs. Raises `CnngraphError` if it was not installed."""
    for folder in _FOLDERS:
        if (folder / _BLOCKS).is_dir():
            return folder
    raise CnngraphError("the specs of cnngraph are not installed: install cnngraph once more")


def shipped_names() -> list[str]:
    """The names of all shipped networks, sorted. Raises `CnngraphError` as `specs_folder`."""
    folder = specs_folder()
    paths = (path.relative_to(folder) for path in folder.rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in paths if path.parts[0] != _BLOCKS)


def find_spec(name: str) -> Path:
    """The file that a spec's name means: the file itself, or else the shipped spec of this name."""
    path = Path(name)
    if os.path.isfile(path) or path.suffix or path.is_absolute() or ".." in path.parts:
        return path
    for folder in _FOLDERS:
        shipped = folder / f"{path.as_posix()}.yaml"
        if path.parts[:1] != (_BLOCKS,) and os.path.isfile(shipped):
            return shipped
    return path


def similar_names(name: str) -> Notes:
    """A note on the shipped networks that the name of a missing file resembles, if any does."""
    plain = Path(name).with_suffix("").as_posix()
    if plain != name and find_spec(plain) != Path(plain):
        return (
            ("help", f"without `{Path(name).suffix}`, `{plain}` is a network of `cnngraph zoo`"),
        )
    longer = [shipped for shipped in shipped_names() if shipped.startswith(name)]
    if longer and len(name) > 2:
        found = listing([f"`{shipped}`" for shipped in longer[:_MOST_NAMES]], "or")
        return (("help", f"did you mean {found}?"),)
    return did_you_mean(name, shipped_names())
