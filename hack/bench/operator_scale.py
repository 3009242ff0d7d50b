"""The operator with 500 resources on a real API server and controllers: memory, writes at rest, reaction, start-up.

python -m bench.operator_scale [NUMBER]

Pods have no kubelet here: this program reports them as running, as a kubelet would.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import ssl
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "hack")]

from support.control_plane import ControlPlane, OperatorProcess  # noqa: E402

NAMESPACE = "many"
REST_SECONDS = 45.0
CHANGES = 60
_IDLE_SECONDS = 20.0
WANTED_MEMORY, WANTED_REACTION = 300, 1.0
SPEC = {"cache": {"enabled": False}, "api": {"replicas": 1}, "network": {"policy": "Disabled"}}
_READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


class Api:
    """One kept connection to the API server, as its administrator."""

    def __init__(self, plane: ControlPlane) -> None:
        where = urlsplit(plane.server)
        self._used = 0.0
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection(where.hostname or "", where.port, context=trusting)

    def __call__(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        headers = {"Authorization": "Bearer admin-token", "Content-Type": kind}
        if time.monotonic() - self._used > _IDLE_SECONDS:
            self._connection.close()  # the API server closes it soon
        self._used = time.monotonic()
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self._connection.getresponse()
        data = json.loads(answer.read())
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {data.get('message')}")
        return data

    def merge(self, path: str, body: Any) -> Any:
        """A merge patch."""
        return self("PATCH", path, body, "application/merge-patch+json")


RESOURCES = f"/apis/ragkube.dev/v1alpha1/namespaces/{NAMESPACE}/ragdeployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"


def resource(name: str) -> dict[str, Any]:
    """A small RagDeployment."""
    return {
        "apiVersion": "ragkube.dev/v1alpha1",
        "kind": "RagDeployment",
        "metadata": {"name": name},
        "spec": SPEC,
    }


def ready(item: dict[str, Any]) -> bool:
    """Whether it says so."""
    conditions = item.get("status", {}).get("conditions", [])
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


def run_pods(api: Api) -> None:
    """Every new pod runs and is ready."""
    for pod in api("GET", f"{PODS}?fieldSelector=status.phase=Pending")["items"]:
        api.merge(f"{PODS}/{pod['metadata']['name']}/status", {"status": _READY})


def until(what: str, probe: Callable[[], bool], seconds: float, pause: float = 0.5) -> float:
    """Seconds until it is so."""
    started = time.monotonic()
    while not probe():
        if time.monotonic() - started > seconds:
            raise SystemExit(f"{what} did not happen within {seconds:g} s")
        time.sleep(pause)
    return time.monotonic() - started


def all_ready(api: Api, number: int) -> bool:
    """Whether every resource says Ready, with the kubelets' part done."""
    run_pods(api)
    return sum(map(ready, api("GET", RESOURCES)["items"])) == number


def bring_up(api: Api, number: int) -> float:
    """Create them; seconds until all are Ready."""
    started = time.monotonic()
    for index in range(number):
        api("POST", RESOURCES, resource(f"r{index}"))

    until("all are Ready", lambda: all_ready(api, number), 900, 1.0)
    return time.monotonic() - started


def at_rest(plane: ControlPlane) -> tuple[int, float]:
    """Writes and requests a second while nothing happens."""
    last = -1

    def quiet() -> bool:
        nonlocal last
        before, last = last, len(plane.operator_requests(writes=True))
        return before == last

    until("the operator is at rest", quiet, 120, 5.0)
    reads = len(plane.operator_requests(writes=False))
    time.sleep(REST_SECONDS)
    asked = len(plane.operator_requests(writes=False)) - reads
    return len(plane.operator_requests(writes=True)) - last, asked / REST_SECONDS


def reaction(api: Api, name: str, limit: int) -> float:
    """Seconds from a change of the spec to the change of the Deployment."""
    before = api("GET", f"{DEPLOYMENTS}/{name}-api")["metadata"]["generation"]
    started = time.monotonic()
    api.merge(f"{RESOURCES}/{name}", {"spec": {"api": {"maxConcurrency": limit}}})

    def changed() -> bool:
        return bool(api("GET", f"{DEPLOYMENTS}/{name}-api")["metadata"]["generation"] > before)

    until(f"the operator reacts to {name}", changed, 120, 0.02)
    return time.monotonic() - started


def busiest_second(plane: ControlPlane, since: int) -> int:
    """The most requests that the API server got from the operator within one second."""
    entries = plane.operator_requests(writes=True) + plane.operator_requests(writes=False)
    stamps = sorted(entry["requestReceivedTimestamp"][:19] for entry in entries)
    return max(Counter(stamps[since:]).values(), default=0)


def measure(plane: ControlPlane, operator: OperatorProcess, number: int) -> bool:
    """Print every figure; False when one is not as wanted."""
    api = Api(plane)
    print(f"{number} resources created and Ready in {bring_up(api, number):.0f} s")
    writes, rate = at_rest(plane)
    print(
        f"at rest for {REST_SECONDS:.0f} s: {writes} writes, {rate:.1f} requests/s (wanted 0 writes; its Lease not counted)"
    )
    chance = random.Random(5)
    names = [f"r{chance.randrange(number)}" for _ in range(CHANGES)]
    times = [reaction(api, name, 100 + turn) for turn, name in enumerate(names)]
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"reaction to a change: p50 {statistics.median(times):.2f} s, p95 {p95:.2f} s (wanted < {WANTED_REACTION:g})"
    )
    memory = operator.metric("process_resident_memory_bytes") / 2**20
    spent, passes = (
        operator.metric("process_cpu_seconds_total"),
        operator.metric("ragkube_operator_reconciles_total"),
    )
    print(
        f"CPU: {spent:.0f} s for {passes:.0f} passes, {1000 * spent / passes:.0f} ms each with everything around it"
    )
    print(f"memory: {memory:.0f} MiB (wanted < {WANTED_MEMORY})")
    until(
        "all are Ready again",
        lambda: all_ready(api, number),
        120,
    )
    restart(plane, operator, api, number)
    return writes == 0 and p95 < WANTED_REACTION and memory < WANTED_MEMORY


def restart(plane: ControlPlane, operator: OperatorProcess, api: Api, number: int) -> None:
    """A new process: how soon it reacts, how hard it asks, until when it has looked at all."""
    time.sleep(3)
    asked = len(plane.operator_requests(writes=True)) + len(plane.operator_requests(writes=False))
    written = len(plane.operator_requests(writes=True))
    operator.kill()
    started = time.monotonic()
    operator.start()
    until("it leads", lambda: operator.leading, 60, 0.05)
    led = time.monotonic() - started
    print(f"start-up: leads after {led:.1f} s, reacts to a change {reaction(api, 'r0', 99):.2f} s later")
    print(f"start-up: {operator.metric('process_cpu_seconds_total'):.1f} s of CPU until then")

    def looked() -> bool:
        done = operator.metric("ragkube_operator_reconciles_total", lambda line: 'outcome="ok"' in line)
        return done >= number

    until("it has looked at all", looked, 300)
    took = time.monotonic() - started
    writes = len(plane.operator_requests(writes=True)) - written
    print(
        f"start-up: all {number} looked at in {took:.0f} s, at most {busiest_second(plane, asked)} requests in a second, "
        f"{writes} writes (the change above with its status), "
        f"{operator.metric('process_cpu_seconds_total'):.1f} s of CPU"
    )


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int, nargs="?", default=500)
    number = parser.parse_args().number
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder))
        operator = None
        try:
            plane.start()
            config = plane.install()
            plane.kubectl("create", "namespace", NAMESPACE)
            # as installed: with the Lease
            options = {"RAGKUBE_LEASE": "ragkube-system/ragkube-operator", "RAGKUBE_POD_NAME": "one"}
            operator = OperatorProcess(config, Path(folder), options)
            operator.start()
            return 0 if measure(plane, operator, number) else 1
        finally:
            if operator is not None:
                operator.kill()
            plane.stop()


if __name__ == "__main__":
    sys.exit(main())
