"""Damaged and hostile files of weights and compiled networks: one clear line, or the right values."""

from __future__ import annotations

import io
import os
import pickle
import random
import tempfile
import time
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import torch

import cnngraph

SECONDS = 20
"""Reading a small file takes milliseconds; this is far above, and far below a bomb."""

SPEC = """\
cnngraph: 1
name: small
input: [3, 8, 8]
graph:
  - conv2d: {out_channels: 4, kernel_size: 3}
  - batch_norm
  - flatten
  - linear: 5
"""

ODD: tuple[Any, ...] = (
    None, True, -1, 2**70, 10**5000, 1.5, float("nan"), "", "\ud800", "x" * 10**6, b"bytes", [], {}, (),
    [[]] * 3, {1: 2}, torch.ones(2), torch.ones(2, dtype=torch.complex64), torch.ones(3).to_sparse(),
    torch.ones(1).expand(10**9), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    torch.empty(3, device="meta"), torch.ones(2, dtype=torch.bool), "../../etc/passwd", "a\0b",
)  # fmt: skip


@cache
def network() -> Any:
    torch.manual_seed(0)
    return cnngraph.compile(SPEC)


@cache
def contents() -> dict[str, Any]:
    return torch.load(io.BytesIO(written(".ckpt")), weights_only=True)


@cache
def written(suffix: str) -> bytes:
    """A good file: an artifact (.ckpt), weights by torch (.pt, and .old before torch 1.6)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net{suffix}"
        if suffix == ".ckpt":
            cnngraph.save_compiled(network(), path)
        elif suffix == ".old":
            state = network().state_dict()
            torch.save(state, path, _use_new_zipfile_serialization=False)
        else:
            cnngraph.save_weights(network(), path)
        return path.read_bytes()


def damaged(data: bytes, chooser: random.Random) -> bytes:
    """A few bytes changed, removed or repeated."""
    result = bytearray(data)
    for _ in range(chooser.choice([1, 1, 2, 5])):
        here = chooser.randrange(len(result) + 1)
        match chooser.randrange(4):
            case 0:
                result[here : here + 1] = chooser.randbytes(1)
            case 1:
                del result[here:]
            case 2:
                del result[here : here + chooser.choice([1, 8, 100])]
            case _:
                result[here:here] = chooser.choice([b"\0" * 8, b"\xff" * 8, chooser.randbytes(4)])
    return bytes(result)


def with_odd_values(chooser: random.Random) -> bytes:
    """An artifact whose contents are replaced at a few places."""
    whole = {key: dict(v) if isinstance(v, dict) else v for key, v in contents().items()}
    for _ in range(chooser.choice([1, 1, 2])):
        holder = whole
        key = chooser.choice(list(holder))
        if isinstance(holder[key], dict) and holder[key] and chooser.random() < 0.6:
            holder = holder[key]
            key = chooser.choice(list(holder))
        holder[key] = chooser.choice(ODD)
    if chooser.random() < 0.1:
        whole["params"] = whole  # contains itself
    file = io.BytesIO()
    torch.save(whole, file)
    return file.getvalue()


def with_other_pickle(chooser: random.Random) -> bytes:
    """A zip file by torch with a damaged pickle, and correct checksums."""
    source = zipfile.ZipFile(io.BytesIO(written(chooser.choice([".pt", ".ckpt"]))))
    file = io.BytesIO()
    compress = chooser.random() < 0.1
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as to:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = damaged(data, chooser)
            to.writestr(entry.filename, data)
    return file.getvalue()


def bomb(chooser: random.Random) -> bytes:
    """A pickle that would take endless time or memory."""
    levels: list[Any] = []
    for _ in range(40):
        levels = [levels, levels]
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    calls = [
        b"\x80\x02ctorch\nFloatTensor\n(J\xff\xff\xff\x7ftR.",  # two gigabytes, never written
        b"\x80\x02ctorch\nFloatStorage\n(J\xff\xff\xff\x7ftR.",
        b"\x80\x04\x96" + (2**40).to_bytes(8, "little") + b".",  # BYTEARRAY8
        b"\x80\x02" + b"]r\xff\xff\xff\xff.",  # a memo of 4 billion entries
        pickle.dumps(levels, 2),
        pickle.dumps(deep, 2),
    ]
    data = chooser.choice(calls)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as to:
        to.writestr("archive/data.pkl", data)
        to.writestr("archive/version", "3\n")
    return data if chooser.random() < 0.3 else file.getvalue()


def make(number: int) -> bytes:
    chooser = random.Random(number)
    suffixes = [".pt", ".ckpt", ".old", ".safetensors"]
    match chooser.randrange(6):
        case 0 | 1:
            return damaged(written(chooser.choice(suffixes)), chooser)
        case 2 | 3:
            return with_odd_values(chooser)
        case 4:
            return with_other_pickle(chooser)
        case _:
            return bomb(chooser)


def outcome(data: bytes) -> str:
    results: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        path.write_bytes(data)
        start = time.process_time()
        try:
            loaded = cnngraph.load_compiled(path)
            assert all(value.isfinite().all() for value in loaded.state_dict().values())
            results.append("loaded")
        except cnngraph.CnngraphError as error:
            message = str(error)
            message.encode()
            assert "\n" not in message or isinstance(error, cnngraph.SpecError), message
            assert len(message) < 3000 + len(os.fspath(path)), len(message)
            results.append("refused")
        try:
            cnngraph.load_weights(cnngraph.compile(SPEC), path)
            results.append("loaded")
        except cnngraph.CnngraphError as error:
            str(error).encode()
            results.append("refused")
        assert time.process_time() - start < SECONDS
    return " and ".join(results)


def run(number: int) -> Counter[str]:
    return Counter([outcome(make(number))])
