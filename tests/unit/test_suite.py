"""All tests at once: nothing is left out, what fails is told, and who is stopped leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

import suite
from cluster.testbed import cli, programs
from cluster.testbed.own import OwnCluster
from cluster.testbed.paths import State
from support.processes import REPOSITORY, wait_for

ENDS = """
import sys
beside = "not level" in sys.argv
print("second" if beside else "first", flush=True)
sys.exit({second} if beside else {first})
"""
LONG = """
import pathlib, sys, time
name = "second" if "not level" in sys.argv else "first"
try:
    print(name, "began", flush=True)
    pathlib.Path(name).touch()
    time.sleep(600)
except KeyboardInterrupt:
    print(name, "ended", flush=True)
    pathlib.Path(name).unlink()
    sys.exit(2)
"""
RUN = """
import sys, suite
suite.PYTEST = (sys.executable, "-c", {session!r})
suite.build_programs = lambda: None
sys.exit(suite.main(sys.argv[1:]))
"""


def command(session: str, options: Sequence[str] = ()) -> list[str]:
    """The suite with such sessions."""
    return [sys.executable, "-c", RUN.format(session=session), *options]


def played(
    folder: Path, options: Sequence[str], first: int = 0, second: int = 0
) -> subprocess.CompletedProcess[str]:
    """With sessions that do nothing but end; it is called from the root of the checkout."""
    return subprocess.run(
        command(ENDS.format(first=first, second=second), options), env=environment(folder), cwd=REPOSITORY,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "hack"), "TMPDIR": str(folder)}


@pytest.mark.parametrize(
    ("first", "second", "status"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (2, 1, 2), (0, 5, 5), (5, 0, 5)]
)
def test_a_session_that_fails_fails_the_whole(tmp_path: Path, first: int, second: int, status: int) -> None:
    result = played(tmp_path, ["--durations=9"], first, second)
    assert result.returncode == status
    assert result.stdout.splitlines()[1:] == ["first", "", "beside the cluster:", "second"]
    assert list(tmp_path.iterdir()) == [], "it was told"


@pytest.mark.parametrize(
    "options",
    [
        ["tests/unit"], ["-k", "chart"], ["-x", "-k=chart"], ["-m", "soak"], ["a.py::test"], ["--basetemp", "x"],
        ["--junitxml=out.xml"], ["--pdb"],
    ],
)  # fmt: skip
def test_who_chooses_tests_or_what_only_one_can_do_gets_one_session(
    tmp_path: Path, options: list[str]
) -> None:
    result = played(tmp_path, options, first=3)
    assert (result.returncode, result.stdout) == (3, "first\n")


@pytest.mark.parametrize("options", [["--durations", "10"], ["-p", "no:cacheprovider"], ["--maxfail", "1"]])
def test_the_value_of_an_option_chooses_no_tests(tmp_path: Path, options: list[str]) -> None:
    result = played(tmp_path, options)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "second")


@pytest.fixture
def suite_of_long_sessions(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Both run; it was started as a shell starts what runs in the background."""
    with subprocess.Popen(
        command(LONG), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True, process_group=0,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_IGN),
    ) as process:  # fmt: skip
        try:
            wait_for("both run", lambda: running(tmp_path) == {"first", "second"})
            yield process
        finally:
            process.kill()
            wait_for("none is left", lambda: not running(tmp_path))


def running(folder: Path) -> set[str]:
    return {name for name in ("first", "second") if (folder / name).exists()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both_sessions_as_ctrl_c_does(
    suite_of_long_sessions: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    suite_of_long_sessions.send_signal(number)  # as timeout(1) does it: the process, then its group
    os.killpg(suite_of_long_sessions.pid, number)
    told, _ = suite_of_long_sessions.communicate(timeout=60)
    assert suite_of_long_sessions.returncode == 128 + number
    assert running(tmp_path) == set()
    assert told.splitlines()[1:] == [
        "first began", "first ended", "", "beside the cluster:", "second began", "second ended",
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the children")
def test_a_killed_run_leaves_what_the_session_beside_printed_and_no_session(
    suite_of_long_sessions: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert suite_of_long_sessions.stdout
    output = Path(suite_of_long_sessions.stdout.readline().rpartition(": ")[2].strip())
    suite_of_long_sessions.kill()
    wait_for("both end", lambda: not running(tmp_path))
    assert output.parent == tmp_path
    assert output.read_text() == "second began\nsecond ended\n"


def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that would be."""
    names: list[str] = []
    monkeypatch.setattr(cli, "tool", names.append)
    suite.build_programs()
    return names


def test_for_our_own_cluster_everything_is_built_but_what_only_soaks_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "choose", lambda: OwnCluster(State.named("never-started", cache=tmp_path)))
    names = built(monkeypatch)
    soaks = {name for name in programs.PROGRAMS if name.startswith("keda-")}
    assert set(names) >= set(programs.PROGRAMS) - soaks
    assert not set(names) & soaks


def test_what_is_given_or_only_for_our_own_cluster_is_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAGKUBE_KUBECONFIG", str(tmp_path / "given"))
    monkeypatch.setenv("RAGKUBE_TOOL_REDIS_SERVER", "/usr/bin/redis-server")
    names = built(monkeypatch)
    assert {"kubectl", "weaviate", "promtool", "valkey-server"} <= set(names)
    assert not {"redis-server", "coredns", "kube-state-metrics"} & set(names)
