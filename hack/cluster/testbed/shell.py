"""Running other programs; waiting for what they do."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from cluster.testbed.paths import TestbedError, UnavailableError, locked

PACKAGES = {  # program -> Debian package
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
    "gcc": "gcc",
    "openssl": "openssl",
    "curl": "curl",
    "ip": "iproute2",
    "pgrep": "procps",
    "nsenter": "util-linux",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> str:
    """Run to the end and return what it printed; a failure carries the last lines of both streams."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise TestbedError(f"{' '.join(words[:6])} … failed with {done.returncode}:\n{tail}")
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = 60, pause: float = 0.1) -> None:
    """Poll until `condition` holds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TestbedError(f"waited {timeout:.0f} s in vain: {what}")
        time.sleep(pause)


def missing(programs: Iterable[str]) -> list[str]:
    return [program for program in programs if not shutil.which(program)]


def need(*programs: str) -> None:
    """Make sure that programs are installed; as root on Debian or Ubuntu, install what is missing."""
    absent = missing(programs)
    if not absent:
        return
    packages = sorted({PACKAGES[program] for program in absent})
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise UnavailableError(f"not installed: {', '.join(absent)} (Debian packages: {' '.join(packages)})")
    with locked("apt"):
        say(f"installing {' '.join(packages)}")
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-q"], env=quiet)
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], env=quiet)


class Timer:
    """Says how long a step took."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.seconds = time.monotonic() - self._start
        say(f"{self.what}: {self.seconds:.1f} s" + (" (failed)" if kind else ""))
