"""Real servers as local processes: find the program, start it, wait for it, and leave nothing behind."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
T = TypeVar("T")
_PORTS = range(10_000, 30_000)
"""Below what systems give to connections, and what Kubernetes gives to services."""
_PR_SET_PDEATHSIG = 1
_starter = ThreadPoolExecutor(1, "starter")


@functools.cache
def tool(name: str) -> Path:
    """The path of a real program; skips the test where the machine has none.

    Order: ``RAGKUBE_TOOL_<NAME>``, the test bench (which builds or unpacks it once), ``PATH``.
    """
    named = os.environ.get(f"RAGKUBE_TOOL_{name.upper().replace('-', '_')}")
    if named:
        return Path(named)
    command = [sys.executable, str(REPOSITORY / "hack" / "cluster" / "cluster.py"), "tool", name]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = result.stdout.split()
    if result.returncode == 0 and lines and Path(lines[-1]).exists():
        return Path(lines[-1])
    found = shutil.which(name)
    if found:
        return Path(found)
    reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
    pytest.skip(f"this machine has no {name}: {reason}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that a server finds free again when it has been away.

    One that the kernel would choose may be given to somebody else meanwhile.
    """
    candidates = random.Random().sample(_PORTS, len(_PORTS))  # others may have seeded the module's own
    return list(itertools.islice(filter(_is_free, candidates), count))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for the signal (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def wait_for(what: str, probe: Callable[[], T], *, seconds: float = 120, pause: float = 0.05) -> T:
    """The first truthy result of ``probe``; errors of connections count as "not yet"."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            value = probe()
        except (OSError, RuntimeError) as error:
            last = error
        else:
            if value:
                return value
            last = value
        time.sleep(pause)
    raise AssertionError(f"{what} did not happen within {seconds:g} s; last: {last!r}")


class Process:
    """One server. It dies with this process, also when that is killed."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self.env = {**os.environ, **(env or {})}
        self._running: subprocess.Popen[bytes] | None = None
        self.frozen = False

    def start(self) -> None:
        # "dies with its parent" means the thread that started it: one that lives as long as this process does
        _starter.submit(self._start).result()

    def _start(self) -> None:
        with self.log.open("ab") as output:
            self._running = subprocess.Popen(
                self.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                env=self.env, cwd=self.log.parent, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def kill(self) -> None:
        """As a lost node: no goodbye."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None
            self.frozen = False

    def terminate(self, seconds: float = 15) -> int:
        """Ask it to end, as the kubelet does; its exit code (-9 when it had to be killed)."""
        assert self._running is not None
        self._running.terminate()
        try:
            return self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            self._running.kill()
            return self._running.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    @property
    def alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def _signal(self, number: signal.Signals) -> None:
        assert self._running is not None
        self._running.send_signal(number)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
