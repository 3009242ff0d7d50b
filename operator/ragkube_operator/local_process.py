"""The API as a child process that never outlives ``ragkube run``."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

STOP_SECONDS = 1.5
LOG_BYTES = 10 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_LINUX = sys.platform.startswith("linux")


class Child:
    """A running ``python -m ragkube_api`` and the end of what it logged."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Path, echo: Callable[[str], None] | None
    ) -> None:
        self._process = process
        self._log = log
        self._echo = echo
        self._tail: deque[str] = deque(maxlen=20)
        self._reader = threading.Thread(target=self._read, name="api-log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_code(self, timeout: float = 0) -> int | None:
        """None while it runs."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Ask it to end, then make it end."""
        if self.exit_code() is None:
            self._process.terminate()
        if self.exit_code(STOP_SECONDS) is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(1)

    def last_words(self) -> str:
        """The last thing it said: why it ended."""
        self._reader.join(1)
        return next((_message(line) for line in reversed(self._tail) if line.strip()), "it gave no reason")

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is None:
            return
        log = _Log(self._log)
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            self._tail.append(line)
            log.write(raw)
            if self._echo:
                self._echo(line)
        log.close()


@contextmanager
def started(
    settings: Path,
    log: Path,
    *,
    share: int,
    environment: Mapping[str, str],
    echo: Callable[[str], None] | None,
) -> Iterator[Child]:
    """Start the API with this settings file; it has ended when the block ends.

    ``share`` is a descriptor the child keeps open: the lock of the data directory.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ragkube_api"],
        env={**environment, "RAGKUBE_SETTINGS": str(settings), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(share,),
        start_new_session=True,  # Ctrl-C reaches the parent only, which ends the child in order
        preexec_fn=functools.partial(_die_with, os.getpid(), ctypes.CDLL(None)) if _LINUX else None,
    )
    child = Child(process, log, echo)
    try:
        yield child
    finally:
        child.stop()


def _die_with(parent: int, libc: ctypes.CDLL) -> None:
    """In the child before it starts: the parent's death is its own; a log nobody reads could block a milder end."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


class _Log:
    """Appends to a file that starts anew when it has grown too large. Trouble with it never stops the API."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None

    def write(self, line: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._stream is None:
                self._stream = self._path.open("ab", buffering=0)
            if self._stream.tell() > LOG_BYTES:
                self._path.replace(self._path.with_suffix(".log.1"))
                self.close()
                self._stream = self._path.open("ab", buffering=0)
            self._stream.write(line)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _message(line: str) -> str:
    """The sentence in a log line of either format."""
    try:
        record = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(record, dict):
        return line.strip()
    return str(
        next((record[key] for key in ("detail", "error", "message", "event") if record.get(key)), line)
    )
