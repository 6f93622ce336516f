"""Peaks of memory, and the memory settings of the C library."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import cnngraph
from cnngraph import allocator
from cnngraph.bench.devices import peak_of_process, peak_of_tensors, restart_peak_of_process

TINY = Path(__file__).parent / "tiny.yaml"

GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
MEGABYTE = 2**20


def test_the_peak_of_tensors_is_exact_in_bytes() -> None:
    kept = []

    def step() -> None:
        first = torch.empty(3 * MEGABYTE, dtype=torch.uint8)
        del first
        second = torch.empty(2 * MEGABYTE, dtype=torch.uint8)
        third = torch.empty(2 * MEGABYTE, dtype=torch.uint8)
        del second, third
        kept.append(torch.empty(MEGABYTE, dtype=torch.uint8))

    assert peak_of_tensors(step) == 4 * MEGABYTE
    assert peak_of_tensors(lambda: None) == 0


def test_the_peak_counts_what_autograd_keeps() -> None:
    x = torch.ones(MEGABYTE // 4, requires_grad=True)

    def step() -> None:
        x.sin().exp().sum().backward()

    # The sine and the exponential, and temporary gradients.
    assert 2 * MEGABYTE <= peak_of_tensors(step) <= 5 * MEGABYTE


def test_the_peak_of_the_process_covers_its_tensors() -> None:
    restart_peak_of_process()
    before = peak_of_process()
    assert before is not None
    filled = torch.ones(16 * MEGABYTE)
    after = peak_of_process()
    assert after is not None
    assert after >= before
    assert after >= filled.numel() * 4


def in_process(script: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


FAULTS = """
import json, resource, sys
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    for _ in range(4):
        torch.ones(10_000_000)  # 40 MB: malloc does not keep them by default

first = second = None
if TUNED:
    from cnngraph.allocator import tune_memory
    first, second = tune_memory(), tune_memory()
step()
before = faults()
step()
print(json.dumps({"first": str(first), "second": str(second), "faults": faults() - before}))
"""


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_tuned_memory_causes_no_further_page_faults() -> None:
    tuned = in_process(FAULTS.replace("TUNED", "True"))
    default = in_process(FAULTS.replace("TUNED", "False"))
    assert tuned["first"] == tuned["second"]
    assert tuned["first"].startswith("memory settings: freed memory is kept (mallopt); ")
    assert "\n" not in tuned["first"]
    # 4 x 40 MB are 39,000 pages of 4 kB.
    assert tuned["faults"] < 1000
    assert default["faults"] > tuned["faults"]


def test_compile_tunes_memory_only_on_request() -> None:
    script = f"""
import json
import cnngraph
from cnngraph import allocator
plain = cnngraph.compile({str(TINY)!r})
untouched = allocator._settings
tuned = cnngraph.compile({str(TINY)!r}, memory_tuning=True)
compilations = [plain.compilation, tuned.compilation]
settings = [compilation.memory_settings for compilation in compilations]
print(json.dumps([settings[0], untouched, str(settings[1]), str(allocator.tune_memory())]))
"""
    plain, untouched, tuned, settings = in_process(script)
    assert plain is None
    assert untouched is None
    assert tuned == settings
    assert tuned.startswith("memory settings: ")


def test_memory_is_not_tuned_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("the C library was loaded")

    monkeypatch.setattr(allocator, "_settings", None)
    monkeypatch.setattr(allocator.ctypes, "CDLL", never)
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.setattr(allocator.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    settings = allocator.tune_memory()
    assert settings == allocator.MemorySettings(supported=False)
    assert str(settings) == "memory settings: none, they need Linux with glibc (this is Darwin)"


@pytest.mark.parametrize(
    ("choice", "pages", "text"),
    [
        ("always", "always", "huge pages are always on"),
        ("never", "none", "no huge pages (the system"),
        ("", "none", "no huge pages (the system"),
    ],
)
def test_huge_pages_are_not_requested_if_the_system_decides(
    monkeypatch: pytest.MonkeyPatch, choice: str, pages: str, text: str
) -> None:
    monkeypatch.setattr(allocator, "_system_choice", lambda: choice)
    assert allocator._huge_pages(None) == (pages, 0)
    assert f"; {text}" in str(allocator.MemorySettings(True, True, pages))


def test_a_failure_of_mallopt_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def mallopt(self, *args: int) -> int:
            return 0

    assert not allocator._keep_freed_memory(Library())
    assert "mallopt failed" in str(allocator.MemorySettings(True, False))


def test_a_saved_network_has_no_memory_settings(tmp_path: Path) -> None:
    cnngraph.save_compiled(cnngraph.compile(TINY), tmp_path / "net.pt")
    assert cnngraph.load_compiled(tmp_path / "net.pt").compilation.memory_settings is None
