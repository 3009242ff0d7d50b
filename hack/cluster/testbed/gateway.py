"""Into a cluster whose network is not on this machine: a pod that relays, reached with `kubectl port-forward`."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from cluster.testbed.paths import HERE, State, TestbedError
from cluster.testbed.shell import run

NAMESPACE = "ragkube-testbed"
IMAGE = "python:3.13-slim"
_PORT = 8118
_RELAY = HERE / "testbed" / "relay.py"


def manifests() -> str:
    container = {
        "name": "relay",
        "image": IMAGE,
        "command": ["python3", "/relay/relay.py", f":{_PORT}"],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "relay", "mountPath": "/relay"}],
    }
    pod: dict[str, Any] = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "relay", "configMap": {"name": "relay"}}],
    }
    here = {"name": "relay", "namespace": NAMESPACE}
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": here, "data": {"relay.py": _RELAY.read_text()}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": here, "spec": pod},
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


class Gateway:
    """Made when it is first used."""

    def __init__(self, state: State, kubectl: Callable[[], list[str]]) -> None:
        self._state = state
        self._kubectl = kubectl
        self._forwarding: subprocess.Popen[str] | None = None
        self._url = ""

    def proxy(self) -> str:
        if self._forwarding is None or self._forwarding.poll() is not None:
            run([*self._kubectl(), "apply", "-f", "-"], stdin=manifests())
            run(
                [
                    *self._kubectl(),
                    "-n",
                    NAMESPACE,
                    "wait",
                    "--for=condition=Ready",
                    "pod/relay",
                    "--timeout=180s",
                ]
            )
            self._url = f"http://127.0.0.1:{self._forward()}"
        return self._url

    def forward(self, port: int, target: str) -> int:
        proxy = self.proxy().removeprefix("http://")
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_RELAY), f"127.0.0.1:{port}", target, proxy], check=False
        )
        return done.returncode

    def stop(self) -> None:
        if self._forwarding is not None:
            self._forwarding.kill()
            self._forwarding.wait()
            self._forwarding = None

    def _forward(self) -> int:
        command = [*self._kubectl(), "-n", NAMESPACE, "port-forward", "pod/relay", f":{_PORT}"]
        self._forwarding = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        output = self._forwarding.stdout
        line = output.readline() if output else ""
        found = re.search(r":(\d+) ->", line)
        if not found:
            raise TestbedError(f"kubectl port-forward said {line!r}")
        return int(found[1])
