"""All tests in two sessions of pytest side by side: those on a cluster mostly wait, the others need a processor.

``python hack/suite.py [OPTION…]``: options of pytest for both sessions. What the session on the cluster prints is seen at once; what
the other one prints, when both have ended: until then it stands in a file that is named at the start. Options that choose tests
(a path that exists, an id, -k, -m), name a file that only one can write or ask at the terminal make it one ordinary session. The
first SIGINT or SIGTERM is passed on as Ctrl-C, and sessions tear down what they have set up. The exit status is pytest's, of the
first session that failed, else 0; after a signal 128 and its number.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

from cluster.testbed import cli, programs, rootfs
from cluster.testbed.own import OwnCluster
from cluster.testbed.paths import TestbedError
from cluster.testbed.shell import say

PYTEST = (str(Path(sys.executable).with_name("pytest")),)
NICE = ("nice", "-n", "5")
"""For the session beside: pods that start do not wait for it."""
CHOOSING = ("-k", "-m")
ALONE = frozenset({"--junitxml", "--junit-xml", "--basetemp", "--log-file", "--pdb", "--trace"})
SOAK_ONLY = "keda-"
IN_CLUSTER_ONLY = frozenset(
    {
        "alertmanager",
        "coredns",
        "kube-network-policies",
        "kube-state-metrics",
        "metrics-server",
        "prometheus-adapter",
    }
)
"""No test runs them on this machine."""
COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(Path(sys.prefix) / "pycache")}
"""Tests start Python some hundred times: nothing is compiled twice, and nothing is written into the checkout."""
_PR_SET_PDEATHSIG = 1


def is_one_session(options: Sequence[str]) -> bool:
    """Whether they choose tests, or ask for what two sessions at once cannot do."""
    return any(_chooses(option) or option.partition("=")[0] in ALONE for option in options)


def _chooses(option: str) -> bool:
    if option.startswith("-"):
        return option.startswith(CHOOSING)
    return "::" in option or Path(option).exists()  # else it is the value of an option


def build_programs() -> None:
    """What tests run on this machine and the environment does not give, and what our own cluster is made of.

    Both sessions need them, and no test's time is spent on what takes minutes; tests say what is missing.
    """
    own = isinstance(cli.choose(), OwnCluster)
    names = [name for name in programs.PROGRAMS if own or name not in IN_CLUSTER_ONLY]
    servers = [name for server in rootfs.SERVERS.values() for name in server.programs]
    for name in ("kubectl", *names, *servers):
        if name.startswith(SOAK_ONLY) or f"RAGKUBE_TOOL_{name.upper().replace('-', '_')}" in os.environ:
            continue
        try:
            cli.tool(name)
        except TestbedError as error:
            say(f"no {name}: {error}")


class Sessions:
    """Sessions of pytest: none outlives this context, nor this process. Ctrl-C and signals to the group come only through it."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._signal = 0

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._interrupt()
            self.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def start(self, command: Sequence[str], **streams: Any) -> None:
        """``streams`` are as for ``subprocess.Popen``."""
        # a group, no session of the system: to those of one session the kernel gives time by how nice they are
        session = subprocess.Popen(
            command, env={**os.environ, **COMPILED}, stdin=subprocess.DEVNULL, process_group=0,
            preexec_fn=_interruptible, **streams,
        )  # fmt: skip
        self._running.append(session)
        if self._signal:
            session.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Until all have ended: the exit status."""
        codes = [session.wait() for session in self._running]
        if self._signal:
            return 128 + self._signal
        return next((code for code in codes if code), 0)

    def _pass_on(self, number: int, _: object) -> None:
        if not self._signal:  # a second one would keep a session from tearing down
            self._signal = number
            self._interrupt()

    def _interrupt(self) -> None:
        for session in self._running:
            session.send_signal(signal.SIGINT)


def _interruptible() -> None:
    """Also where a shell has started us in the background; and when we are killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def one(options: Sequence[str]) -> NoReturn:
    """An ordinary session with these options, in the place of this process."""
    os.execv(PYTEST[0], [*PYTEST, *options])


def both(options: Sequence[str]) -> int:
    """The session on the cluster and the one beside it: the exit status of both."""
    beside = [*NICE, *PYTEST, "-m", "not level", *options, "-o", "cache_dir=.pytest_cache/beside"]
    with tempfile.NamedTemporaryFile(prefix="ragkube-tests-", suffix=".log", delete=False) as output:
        print(f"beside the cluster, told at the end: {output.name}", flush=True)
        with Sessions() as sessions:
            sessions.start([*PYTEST, "-m", "level", *options])
            sessions.start(beside, stdout=output, stderr=subprocess.STDOUT)
            status = sessions.wait()
    tell(Path(output.name))
    return status


def tell(output: Path) -> None:
    """What the session beside has printed; the file goes when that is out."""
    print("\nbeside the cluster:", flush=True)
    sys.stdout.buffer.write(output.read_bytes())
    sys.stdout.flush()
    output.unlink()


def main(options: Sequence[str]) -> int:
    """All tests, or those that the options choose: the exit status."""
    if is_one_session(options):
        one(options)
    build_programs()
    return both(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
