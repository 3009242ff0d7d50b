"""Two operators against a real API server: one works, the other takes over; watches outlive every trouble."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import platforms
from support.api_proxy import ApiProxy
from support.control_plane import ControlPlane, OperatorProcess
from support.processes import REPOSITORY, catches, wait_for

NAMESPACE = "ha"
LEASE = "ragkube-system/ragkube-operator"
SMALL = {"cache": {"enabled": False}, "api": {"replicas": 1}}
TAKEOVER_SECONDS = 30


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = ControlPlane(tmp_path_factory.mktemp("ha"))
    try:
        found.start(controllers=False)
        found.operator_config = found.install()  # type: ignore[attr-defined]
        found.kubectl("create", "namespace", NAMESPACE)
        yield found
    finally:
        found.stop()


Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(plane: ControlPlane, tmp_path: Path) -> Iterator[Start]:
    """`start(name, **variables)`: one more instance, with exactly the operator's rights."""
    started: list[OperatorProcess] = []

    def one(name: str, config: Path | None = None, **variables: str) -> OperatorProcess:
        folder = tmp_path / name
        folder.mkdir()
        options = {"RAGKUBE_LEASE": LEASE, "RAGKUBE_POD_NAME": name, **variables}
        made = OperatorProcess(config or plane.operator_config, folder, options)  # type: ignore[attr-defined]
        made.start()
        started.append(made)
        return made

    yield one
    for each in started:
        each.kill()
    plane.kubectl("delete", "ragd", "--all", "-n", NAMESPACE)
    plane.kubectl("delete", "lease", "--all", "-n", "ragkube-system")


def resource(name: str, **spec: Any) -> dict[str, Any]:
    return platforms.resource(name, NAMESPACE, **spec)


def pair(start: Start) -> tuple[OperatorProcess, OperatorProcess]:
    """One that leads, and its standby."""
    first = start("first")
    wait_for("it leads", lambda: first.leading)
    second = start("second")
    wait_for("the standby is ready", lambda: second.probe("/readyz")[0] == 200)
    return first, second


def observed(plane: ControlPlane, name: str, generation: int = 1) -> bool:
    status = plane.get("ragd", name, "-n", NAMESPACE).get("status") or {}
    return int(status.get("observedGeneration", 0)) >= generation and len(status["conditions"]) > 3


def holder(plane: ControlPlane) -> str:
    namespace, name = LEASE.split("/")
    return str(plane.get("lease", name, "-n", namespace)["spec"]["holderIdentity"])


def writes_of(operator: OperatorProcess) -> float:
    """Writes to anything but the Lease, as the process counted them."""
    return operator.metric("ragkube_operator_kube_requests_total", lambda line: 'verb="apply"' in line)


@pytest.mark.proves("K13")
def test_one_works_the_other_is_ready_and_idle(plane: ControlPlane, start: Start) -> None:
    first, second = pair(start)
    assert second.probe("/readyz") == (200, {"leading": False, "problem": None})
    plane.apply(resource("shared", **SMALL))
    wait_for("the resource is seen", lambda: observed(plane, "shared"))
    assert holder(plane) == "first"
    assert first.probe("/healthz") == (200, {"leading": True})
    assert second.metric("ragkube_operator_leader") == 0
    assert second.metric("ragkube_operator_reconciles_total") == 0
    only_leases = second.metric(
        "ragkube_operator_kube_requests_total",
        lambda line: 'resource="Lease"' not in line and "APIResource" not in line,
    )
    assert only_leases == 0


IMPATIENT = (
    "import sys; from ragkube_operator import __main__, check; check.PATIENCE_SECONDS = 4.0;"
    "sys.exit(__main__.main(['check']))"
)


def check(plane: ControlPlane, *program: str) -> subprocess.CompletedProcess[str]:
    """What `helm test` runs in a pod."""
    config = str(plane.operator_config)  # type: ignore[attr-defined]
    env = {
        **os.environ,
        "RAGKUBE_KUBECONFIG": config,
        "RAGKUBE_LEASE": LEASE,
        "PYTHONPATH": f"{REPOSITORY}/operator",
    }
    command = [sys.executable, *(program or ("-m", "ragkube_operator", "check"))]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.proves("K11", "K13")
def test_the_check_tells_whether_an_operator_is_at_work(plane: ControlPlane, start: Start) -> None:
    operator = start("first")
    wait_for("it leads", lambda: operator.leading)
    done = check(plane)
    assert (done.returncode, done.stdout) == (0, "an operator is at work\n"), done.stderr
    operator.kill()
    done = check(plane, "-c", IMPATIENT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"nobody renews the Lease {LEASE}")


@pytest.mark.proves("K13")
def test_a_killed_leader_is_replaced_in_the_middle_of_its_work(plane: ControlPlane, start: Start) -> None:
    first, _ = pair(start)
    before = len(plane.operator_requests(writes=True))
    plane.apply(resource("crash"))
    wait_for("it has begun", lambda: len(plane.operator_requests(writes=True)) > before + 3)
    first.kill()
    killed = time.monotonic()
    wait_for("the standby goes on", lambda: observed(plane, "crash"), seconds=TAKEOVER_SECONDS + 10)
    took = time.monotonic() - killed
    print(f"\na killed operator is replaced after {took:.1f} s")
    assert took < TAKEOVER_SECONDS
    assert holder(plane) == "second"
    names = [
        item["metadata"]["name"] for item in plane.get("deployments,statefulsets", "-n", NAMESPACE)["items"]
    ]
    assert sorted(name for name in names if name.startswith("crash")) == [
        "crash-api", "crash-redis", "crash-weaviate",
    ]  # fmt: skip


@pytest.mark.proves("K13")
def test_a_leader_that_ends_hands_over_at_once(plane: ControlPlane, start: Start) -> None:
    first, second = pair(start)
    asked = time.monotonic()
    assert first.process.terminate() == 0
    ended = time.monotonic()
    wait_for("the standby leads", lambda: second.leading)
    print(
        f"\na rolled operator ends in {ended - asked:.1f} s, the next leads {time.monotonic() - ended:.1f} s later"
    )
    assert time.monotonic() - ended < 5
    plane.apply(resource("handed", **SMALL))
    wait_for("it works", lambda: observed(plane, "handed"))


@pytest.mark.proves("K13")
def test_a_leader_that_was_frozen_writes_nothing_when_it_wakes(plane: ControlPlane, start: Start) -> None:
    first, second = pair(start)
    plane.apply(resource("frozen", **SMALL))
    wait_for("the resource is seen", lambda: observed(plane, "frozen"))
    first.process.freeze()
    wait_for("the standby leads", lambda: second.leading, seconds=TAKEOVER_SECONDS)
    # the watches of the frozen one have this in their buffers when it wakes
    plane.apply(resource("frozen", **SMALL, paused=True))
    wait_for("the new leader sees it", lambda: observed(plane, "frozen", 2))
    first.process.thaw()
    # by its own clock the deadline has passed: the first look at the Lease shows the other holder
    wait_for("it has stepped down", lambda: "leadership_lost" in first.log())
    wait_for("it stands by", lambda: first.probe("/readyz") == (200, {"leading": False, "problem": None}))
    count = writes_of(first)
    plane.apply(resource("frozen", **SMALL, paused=False))
    wait_for("the new leader goes on", lambda: observed(plane, "frozen", 3))
    assert writes_of(first) == count
    assert holder(plane) == "second"
    second.kill()
    wait_for("it leads again", lambda: first.leading, seconds=TAKEOVER_SECONDS)
    plane.apply(resource("again", **SMALL))
    wait_for("it works again", lambda: observed(plane, "again"))


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[ApiProxy]:
    made = ApiProxy(plane.server)
    yield made
    made.stop()


@pytest.fixture
def behind(plane: ControlPlane, proxy: ApiProxy, start: Start, tmp_path: Path) -> OperatorProcess:
    """An operator that sees the API server through the proxy, at work."""
    config = json.loads(plane.operator_config.read_text())  # type: ignore[attr-defined]
    config["clusters"][0]["cluster"] = {"server": proxy.url}
    path = tmp_path / "proxied.conf"
    path.write_text(json.dumps(config))
    found = start("proxied", path)
    wait_for("it watches", lambda: found.leading and proxy.watches() >= 8)
    return found


def reaction(plane: ControlPlane, name: str) -> float:
    started = time.monotonic()
    plane.apply(resource(name, **SMALL))
    wait_for(f"{name} is seen", lambda: observed(plane, name))
    return time.monotonic() - started


@pytest.mark.proves("K13")
def test_watches_survive_410_resets_and_throttling(
    plane: ControlPlane, proxy: ApiProxy, behind: OperatorProcess
) -> None:
    assert reaction(plane, "before") < 10
    assert proxy.expire_watches() >= 8
    wait_for("it watches again", lambda: proxy.watches() >= 8)
    assert reaction(plane, "expired") < 10
    assert proxy.reset_watches() >= 8
    wait_for("it watches again", lambda: proxy.watches() >= 8)
    assert reaction(plane, "reset") < 10
    proxy.refuse(429, 6)
    assert reaction(plane, "throttled") < 20
    assert proxy.seen["429"] == 6
    assert behind.metric("ragkube_operator_reconciles_total", lambda line: 'outcome="crash"' in line) == 0


@pytest.mark.proves("K13")
def test_an_api_server_that_fails_for_long_is_watched_again(
    plane: ControlPlane, proxy: ApiProxy, behind: OperatorProcess
) -> None:
    """Every request fails until kopf gives its watches up: the process starts them from nothing."""
    proxy.refuse(500, 10**9)
    proxy.reset_watches()
    wait_for("it gives the Lease up", lambda: not behind.leading, seconds=60)
    proxy.refuse(500, 0)
    wait_for("it watches again", lambda: behind.leading and proxy.watches() >= 8, seconds=60)
    assert reaction(plane, "recovered") < 10
    assert behind.process.alive


@pytest.mark.proves("K13")
def test_the_api_server_restarts_and_both_instances_go_on(plane: ControlPlane, start: Start) -> None:
    first, second = pair(start)
    assert reaction(plane, "old") < 10
    plane.api.kill()
    plane.start_api()
    assert reaction(plane, "new") < TAKEOVER_SECONDS
    wait_for("one leads", lambda: first.leading != second.leading)
    assert first.process.alive
    assert second.process.alive


@pytest.mark.proves("K13")
@pytest.mark.parametrize("pause", [0.0, 0.2, 0.5])
def test_it_ends_at_once_also_while_it_starts(start: Start, pause: float) -> None:
    operator = start("early")
    if pause:  # counted from its first handler on: Python takes as long as it takes to come up
        wait_for("it catches the signal", lambda: catches(operator.process.pid, signal.SIGTERM), pause=0.01)
        time.sleep(pause)
    asked = time.monotonic()
    code = operator.process.terminate()
    # before the first line of Python a signal has its default effect
    assert code in ({0, -15} if not pause else {0})
    assert time.monotonic() - asked < 5
