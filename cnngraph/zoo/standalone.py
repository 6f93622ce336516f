"""A spec as one file: with the blocks that it imports, and with the base that it extends.

Works on the text of the files, so that comments stay.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_REFERENCE = ("paper", "year", "source")
_REPLACED = ("cnngraph", "name", "input", "init")
"""The keys of a variant that replace those of its base, besides the reference and `expect`."""


def standalone(path: Path) -> str:
    """The text of a spec of the same network, without `imports` and `extends`.

    Of the blocks of imported libraries and of the base, those that are not used are left out.
    """
    written = path.read_text(encoding="utf-8")
    if {"imports", "extends"}.isdisjoint(_parts(written, indent=0)):
        return written
    sections = _joined(path)
    if "blocks" in sections:
        rest = "".join(text for key, text in sections.items() if key != "blocks")
        sections["blocks"] = _section(_used(_blocks(sections), rest))
    text = "".join(sections.values())
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def _joined(path: Path) -> dict[str, str]:
    """The text of each key of the document with its imports and its base, and the comments before
    the key."""
    sections = _parts(path.read_text(encoding="utf-8"), indent=0)
    if "extends" in sections:
        (base,) = _files(sections, "extends")
        return _variant(_joined(path.parent / base), sections)
    if "imports" in sections:
        blocks: dict[str, str] = {}
        for file in _files(sections, "imports"):
            blocks |= _blocks(_joined(path.parent / file))
        blocks |= _blocks(sections)
        sections.pop("blocks", None)
        place = {"imports": "blocks"}
        sections = {place.get(key, key): text for key, text in sections.items()}
        sections["blocks"] = _section(blocks)
    return sections


def _section(blocks: dict[str, str]) -> str:
    body = "\n".join(text.strip("\n") + "\n" for text in blocks.values())
    return f"\nblocks:\n{body}\n"


def _parts(text: str, indent: int) -> dict[str, str]:
    """The entries of a block mapping with this indentation, each with the comments before it."""
    parts: dict[str, str] = {}
    waiting, key = "", ""
    for line in text.splitlines(keepends=True):
        found = re.match(rf" {{{indent}}}([\w-]+):", line)
        if found:
            key = found[1]
            parts[key] = waiting + line
            waiting = ""
        elif not line.strip() or re.match(rf" {{0,{indent}}}#", line):
            waiting += line
        else:
            parts[key] += waiting + line
            waiting = ""
    return parts


def _files(sections: dict[str, str], key: str) -> list[str]:
    files = yaml.safe_load(sections[key])[key]
    return [files] if isinstance(files, str) else files


def _blocks(sections: dict[str, str]) -> dict[str, str]:
    _, _, body = sections.get("blocks", "").partition("blocks:\n")
    return _parts(body, indent=2)


def _used(blocks: dict[str, str], text: str) -> dict[str, str]:
    """The blocks that `text` names, and those that they name in turn."""
    used: dict[str, str] = {}
    while more := {
        name: block
        for name, block in blocks.items()
        if name not in used and re.search(rf"\b{name}\b", text + "".join(used.values()))
    }:
        used |= more
    return {name: block for name, block in blocks.items() if name in used}


def _variant(base: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """The sections of a base with what a variant replaces."""
    sections = {key: text for key, text in base.items() if key != "expect"}
    for key in _REPLACED:
        if key in own:
            sections[key] = own[key]
    if not own.keys().isdisjoint(_REFERENCE):
        sections = {key: text for key, text in sections.items() if key not in _REFERENCE}
        sections["name"] += "".join(own[key] for key in _REFERENCE if key in own)
    if "params" in own:
        sections["params"] = _with_values(base["params"], own["params"])
    if "expect" in own:
        sections["expect"] = own["expect"]
    return sections


def _with_values(params: str, given: str) -> str:
    """The text of `params` with the values of another text."""
    values = dict(_values(given))
    for name, (start, end) in reversed(_values(params)):
        if name in values:
            first, last = values[name]
            params = params[:start] + given[first:last] + params[end:]
    return params


def _values(params: str) -> list[tuple[str, tuple[int, int]]]:
    """The place of each value in the text: from the end of its key to its last character."""
    root = yaml.compose(params, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    ((_, mapping),) = root.value
    places: list[tuple[str, tuple[int, int]]] = []
    for key, value in mapping.value:
        start, end = key.end_mark.index, value.end_mark.index
        places.append((key.value, (start, start + len(params[start:end].rstrip()))))
    return places
