"""The long run: `python -m tests.fuzz --minutes 60`."""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import itertools
import time
import traceback
from collections import Counter

KINDS = ("operators", "documents", "hostile", "networks", "sizes", "files")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all")
    parser.add_argument("--minutes", type=float, default=60, help="of each kind")
    parser.add_argument("--count", type=int, help="of inputs or batches of them, instead of a time")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    options = parser.parse_args()
    kinds = options.kinds or KINDS
    if not set(kinds) <= set(KINDS):
        parser.error(f"KIND is one of {', '.join(KINDS)}")
    faulthandler.enable()
    findings = sum(fuzz(kind, options.first, options.count, options.minutes) for kind in kinds)
    return 1 if findings else 0


def fuzz(kind: str, first: int, count: int | None, minutes: float) -> int:
    """Runs inputs of one kind, and returns the number of findings. Prints each of them."""
    run = importlib.import_module(f".{kind}", __package__).run
    numbers = itertools.count(first) if count is None else range(first, first + count)
    end = time.monotonic() + 60 * minutes
    outcomes: Counter[str] = Counter()
    for number in numbers:
        if count is None and time.monotonic() > end:
            break
        print(f"{kind} {number}", end="\r", flush=True)  # the last one, if the process crashes
        try:
            outcomes.update(run(number))
        except Exception:
            outcomes["FOUND"] += 1
            print(f"{kind} {number}:\n{traceback.format_exc()}", flush=True)
    print(f"{kind}: {outcomes.total()} inputs from {first}: {dict(outcomes)}", flush=True)
    return outcomes["FOUND"]


raise SystemExit(main())
