"""The ``ragkube`` command as a user runs it: in processes of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "ragkube_operator.cli"]
READY = "end: Ctrl-C"
PATIENCE = 60


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would change the command's behaviour."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("RAGKUBE_", "ANTHROPIC_", "FORCE_", "NO_COLOR"))
    }
    return {**kept, "PYTHONPATH": f"{REPOSITORY / 'api'}:{REPOSITORY / 'operator'}", **more}


class Command(Protocol):
    """Runs the command to its end."""

    def __call__(self, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]: ...


class Run:
    """A ``ragkube run`` in the background."""

    def __init__(self, arguments: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "run", "--port", "0", *arguments], cwd=cwd, env=environment(**env), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str) -> Run:
        """Until the text has been printed."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.output}"
            time.sleep(0.05)
        return self

    @property
    def url(self) -> str:
        match = re.search(r"answers at (http://\S+)", self.output)
        assert match, self.output
        return match[1]

    def children(self) -> list[int]:
        """Process ids of the API."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send the signal; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._reader.join(5)
        return code


class Start(Protocol):
    """Starts ``ragkube run`` in the background."""

    def __call__(self, *arguments: str | Path, wait: bool = True, **env: str) -> Run: ...


Write = Callable[..., Path]
