"""Ctrl-C and SIGTERM: a run ends after the current step, and is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Whether this process was asked to stop.

    Args:
        on_message: tells the user what happens.

    Attributes:
        asked: whether Ctrl-C was pressed, or SIGTERM received.
    """

    def __init__(self, on_message: Callable[[str], None]) -> None:
        self.asked = False
        self._on_message = on_message

    @contextmanager
    def watched(self) -> Generator[None]:
        """Catches the signals. The second Ctrl-C stops at once, without saving."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous: dict[int, Any] = {}

        def interrupt(number: int, frame: Any) -> None:
            self.asked = True
            signal.signal(number, previous[number])
            self._on_message("stopping after this step; once more stops without saving")

        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, interrupt)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
