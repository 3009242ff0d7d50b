"""Standard output that never makes a request wait: lines are collected and written by a thread of their own."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

_GATHER_SECONDS: Final = 0.02
_MOST_LINES: Final = 20_000


class LogOutput:
    """A text file to loggers. ``flush`` does nothing: what was written is out within a moment, or at ``close``.

    When nobody takes the lines (a full pipe) they are kept up to a bound and then dropped; the next line that gets
    through says how many. When standard output is closed they are thrown away.
    """

    def __init__(self, descriptor: int, dropped: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._line_for = dropped
        self._pending: deque[str] = deque()
        self._dropped = 0
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Take a whole line; never waits. Any thread may call it."""
        if len(self._pending) >= _MOST_LINES:
            self._dropped += 1
            return len(text)
        self._pending.append(text)
        if not self._wake.is_set():
            self._wake.set()
        return len(text)

    def flush(self) -> None:
        """What loggers call after each line."""

    def close(self, seconds: float = 1.0) -> None:
        """Write what is left, for so long at most."""
        self._ending.set()
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._ending.wait(_GATHER_SECONDS)
            self._wake.clear()
            if not self._write_pending():
                return
        self._write_pending()

    def _write_pending(self) -> bool:
        """False when nobody will ever read."""
        lines = [self._pending.popleft() for _ in range(len(self._pending))]
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            lines.append(self._line_for(dropped))
        data = memoryview("".join(lines).encode("utf-8", "backslashreplace"))
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # others share the pipe, and have set it so
                    select.select([], [self._descriptor], [])
        except OSError:
            return False
        return True
