"""`python -m tests.long steps kills threads curves`; all of them without arguments."""

from __future__ import annotations

import argparse
import importlib
import time

RUNS = ("steps", "kills", "threads", "curves")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.long", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(RUNS)}; all")
    runs = parser.parse_args().runs or RUNS
    if not set(runs) <= set(RUNS):
        parser.error(f"RUN is one of {', '.join(RUNS)}")
    for name in runs:
        start = time.monotonic()
        importlib.import_module(f".{name}", __package__).main()
        print(f"{name}: passed in {time.monotonic() - start:.0f} s", flush=True)


main()
