"""All tests in two sessions of pytest side by side: those on a cluster mostly wait, the others need a processor.

``python hack/suite.py [OPTION…]``: options of pytest for both sessions. What the session on the cluster prints is seen at once; what
the other one prints, when both have ended. Options that choose tests (a path, -k, -m) make it one ordinary session. The exit
status is pytest's: of the first session that failed, else 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cluster.testbed import cli, programs, rootfs
from cluster.testbed.paths import TestbedError
from cluster.testbed.shell import say

PYTEST = (str(Path(sys.executable).with_name("pytest")),)
NICE = ("nice", "-n", "10")
"""For the session beside: pods that start do not wait for it."""
CHOOSING = ("-k", "-m")
SOAK_ONLY = "keda-"
COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(sys.prefix) / "pycache")}
"""Tests start Python some hundred times: nothing is compiled twice, and nothing is written into the checkout."""


def chooses(options: Sequence[str]) -> bool:
    return any(not option.startswith("-") or option.startswith(CHOOSING) for option in options)


def build_programs() -> None:
    """Both sessions need them, and no test's time is spent on what takes minutes; tests say what is missing."""
    names = [name for name in programs.PROGRAMS if not name.startswith(SOAK_ONLY)]
    servers = [name for server in rootfs.SERVERS.values() for name in server.programs]
    for name in ("kubectl", *names, *servers):
        try:
            cli.tool(name)
        except TestbedError as error:
            say(f"no {name}: {error}")


def start(selection: str, options: Sequence[str], output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """A session of its own; with ``output`` it is the one beside."""
    command = [*PYTEST, "-m", selection, *options]
    env = {**os.environ, **COMPILED}
    if output is None:
        return subprocess.Popen(command, env=env)
    command = [*NICE, *command, "-o", "cache_dir=.pytest_cache/beside"]
    return subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )


def both(options: Sequence[str]) -> int:
    with tempfile.TemporaryFile() as output:
        sessions = [start("level", options), start("not level", options, output)]
        try:
            codes = [session.wait() for session in sessions]
        except KeyboardInterrupt:  # Ctrl-C has reached the sessions, too: they end what they started
            for session in sessions:
                session.wait()
            raise
        output.seek(0)
        print("\nbeside the cluster:", flush=True)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return next((code for code in codes if code), 0)


def main(options: Sequence[str]) -> int:
    if chooses(options):
        return subprocess.run([*PYTEST, *options], check=False).returncode
    build_programs()
    return both(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
