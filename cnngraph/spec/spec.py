"""A loaded spec: one network, its blocks, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cnngraph.errors import Diagnostic, Position, Source
from cnngraph.spec.document import Expect
from cnngraph.spec.initial import Rules, Scheme
from cnngraph.spec.yaml import Located


@dataclass(frozen=True)
class Block:
    """A block as defined in a file.

    Attributes:
        params: name -> default as written.
        library: the blocks that its body can call.
        order: names of the children whose weights come first in the `state_dict`.
    """

    name: str
    params: dict[str, Located]
    body: Located
    position: Position
    library: Library
    order: Located | None = None

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The params without a default."""
        return tuple(name for name, default in self.params.items() if default.value is None)


@dataclass
class Library:
    """The blocks that a file can call: its own, and those it imports.

    Attributes:
        own: the blocks of the file itself.
        sources: the libraries that `blocks` contains the blocks of, by their file.
        broken: names of blocks whose definition has a mistake.
        complete: False if further blocks are unknown because of a mistake.
    """

    blocks: dict[str, Block] = field(default_factory=dict[str, Block])
    own: dict[str, Block] = field(default_factory=dict[str, Block], repr=False, compare=False)
    sources: dict[Path, Library] = field(
        default_factory=dict[Path, "Library"], repr=False, compare=False
    )
    broken: set[str] = field(default_factory=set[str])
    complete: bool = True


@dataclass(frozen=True)
class Reference:
    """Where a network was published: the title of the paper, the year, and an address."""

    paper: str | None
    year: int | None
    source: str | None


@dataclass(frozen=True)
class Spec:
    """One network, with everything it imports and extends.

    Attributes:
        position: of the whole document.
        input, inputs: the shape of the input, or a mapping from the names of inputs to theirs; one
            of the two, or neither if they are missing, which is then among the `mistakes`.
        graph: None if missing or unreadable, which is then among the `mistakes`.
        outputs: the values to return in place of the last node's, or None.
        params: name -> default as written; the values of a variant replace those of its base.
        declared: name -> default of the base, which determines the param's type.
        files: every file that was read, by absolute path.
        is_library: whether it has blocks only, and no network.
        init: how weights are initialised, where not by torch's defaults.
        allows_code: whether the user allows the spec to import Python code.
        mistakes: everything wrong with the files, apart from the graph.
    """

    name: str
    position: Position
    input: Located | None
    inputs: Located | None
    outputs: Located | None
    params: dict[str, Located]
    declared: dict[str, Located]
    graph: Located | None
    library: Library
    expect: Located | None
    expected: Expect | None
    reference: Reference
    files: dict[Path, Source]
    is_library: bool = False
    init: Rules = field(default_factory=dict[str, dict[str, Scheme]])
    allows_code: bool = False
    mistakes: tuple[Diagnostic, ...] = ()


ALLOW_CODE = (
    "if you trust this spec as you would trust a program, use `--allow-code`, or `allow_code=True` "
    "in Python"
)
