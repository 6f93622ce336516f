"""Files that are replaced completely or not at all, whatever their name and folder."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cnngraph import CnngraphError
from cnngraph.atomic_write import atomic_write, atomic_write_text

SAVE_FOREVER = """
import sys
from pathlib import Path
from cnngraph.atomic_write import atomic_write
print("ready", flush=True)
for number in range(10**9):
    atomic_write(sys.argv[1], lambda file: file.write_bytes(bytes([number % 256]) * 2_000_000))
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b.pt", "null (byte|character)"),
        ("x" * 300 + ".pt", "File name too long"),
        ("missing/net.pt", "the folder .*missing does not exist"),
        ("\ud800.pt", "surrogates not allowed"),
    ],
)
def test_names_that_cannot_be_written_give_one_line(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(CnngraphError, match=message) as caught:
        atomic_write_text(f"{tmp_path}/{name}", "text")
    assert str(caught.value).isprintable()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_gives_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_text("old")

    def full(file: Path) -> None:
        file.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CnngraphError, match="cannot write .*net.pt: No space left on device"):
        atomic_write(path, full)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("net.pt", "old")]


SAVE_TOO_MUCH = """
import resource
import signal
import sys

import cnngraph
from cnngraph.atomic_write import atomic_write_text

network = cnngraph.compile("lenet")
saves = {
    "net.pt": lambda path: cnngraph.save_compiled(network, path),
    "weights.pt": lambda path: cnngraph.save_weights(network, path),
    "weights.safetensors": lambda path: cnngraph.save_weights(network, path),
    "net.svg": lambda path: atomic_write_text(path, "x" * 5000),
}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for name, save in saves.items():
    with open(name, "w") as file:
        file.write("old")
    try:
        save(name)
    except cnngraph.CnngraphError as error:
        print(error)
"""


def test_every_save_to_a_full_disk_gives_its_reason_and_leaves_the_old_file(tmp_path: Path) -> None:
    """In a process whose files may not grow beyond 4 kB."""
    done = subprocess.run(
        [sys.executable, "-c", SAVE_TOO_MUCH], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = ["net.pt", "weights.pt", "weights.safetensors", "net.svg"]
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        assert re.fullmatch(f"cannot write {name}: .*File too large.*", line)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        names, "old"
    )


def test_a_folder_that_cannot_be_written_gives_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "open", refuse)  # permissions do not stop root
    with pytest.raises(CnngraphError, match="cannot write .*net.pt: Read-only file system"):
        atomic_write_text(tmp_path / "net.pt", "text")
    assert not list(tmp_path.iterdir())


def test_a_system_without_fcntl_writes_files_and_removes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = tmp_path / "net.pt"
    left = tmp_path / f".net.pt.{'0' * 32}.tmp"
    left.write_text("perhaps being written")
    atomic_write_text(path, "new")
    assert path.read_text() == "new"
    assert {file.name for file in tmp_path.iterdir()} == {path.name, left.name}


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_text("old")
    path.chmod(0o640)
    atomic_write_text(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_unfinished_files_are_removed_unless_they_are_being_written(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    left = tmp_path / f".net.pt.{'0' * 32}.tmp"
    left.write_text("half")
    other = tmp_path / f".other.pt.{'0' * 32}.tmp"
    other.write_text("half")

    def write(file: Path) -> None:
        atomic_write_text(path, "by another")
        file.write_text("by the first")

    atomic_write(path, write)
    assert path.read_text() == "by the first"
    assert {file.name for file in tmp_path.iterdir()} == {"net.pt", other.name}


def kill_while_saving(folder: Path, times: int) -> None:
    """Kills a process that saves without pause, and requires a complete file after each kill."""
    path = folder / "net.pt"
    for number in range(times):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(0.05 + 0.007 * number)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        if path.exists():
            data = path.read_bytes()
            assert data == data[:1] * 2_000_000
    atomic_write_text(path, "last")
    assert [file.name for file in folder.iterdir()] == ["net.pt"]


@pytest.mark.slow
def test_killed_while_saving_the_old_file_or_the_new_one_remains(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, 10)
