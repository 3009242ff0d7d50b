"""A platform on a cluster whose model and load a test drives: how slow the model is, how much is asked, how many pods run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, wait_for
from support.platforms import admin_key, condition, ready, resource

_CLIENT = Path(__file__).with_name("load_client.py")
_SCRIPT_LENGTH = 20_000


@dataclass
class Counted:
    """What a client saw; complete when it has ended."""

    answers: Mapping[str, int] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.answers.values())


@dataclass
class Loaded:
    """One RagDeployment ``scaled`` with a model server of its own."""

    cluster: Cluster
    kubectl: Kubectl
    http: Http
    space: str
    name: str = "scaled"

    def start(self, repository: Path, **spec: Any) -> None:
        """The model server and the platform, Ready but for its autoscaler, with one document."""
        self.kubectl.apply(*_model(repository), namespace=self.space)
        self.apply(**spec)
        for part in ("SecretsReady", "CacheReady", "VectorStoreReady", "APIReady"):
            limit = ("--timeout=180s",)
            self.kubectl(
                "wait", f"ragd/{self.name}", "-n", self.space, f"--for=condition={part}", *limit, timeout=200
            )
        text = b"# Trains\n\nThe train leaves every second Tuesday at nine.\n"
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "text/markdown"}
        wait_for(
            lambda: (
                self.http("PUT", f"{self.url}/v1/documents/t.md", content=text, headers=headers).status < 300
            ),
            30,
            what="the document to be taken",
        )

    def apply(self, **spec: Any) -> None:
        llm = {"model": "m", "baseUrl": f"http://model.{self.space}:8089", "timeout": "50s"}
        redis = {"managed": {"replicasPerShard": 0}}
        whole = {
            "llm": {"type": "Anthropic", "anthropic": llm},
            "cache": {"redis": redis},
            "network": {"policy": "Disabled"},
            **spec,
        }
        self.kubectl.apply(resource(self.name, **whole), namespace=self.space)

    @property
    def url(self) -> str:
        return f"http://{self.name}.{self.space}"

    @property
    def address(self) -> str:
        """Of the Service: the cluster's DNS is not what is tested, and it may run on the node that dies."""
        return self.kubectl("get", "service", self.name, "-n", self.space, "-o", "jsonpath={.spec.clusterIP}")

    @property
    def key(self) -> str:
        return admin_key(self.kubectl, self.space, self.name)

    @property
    def deployment(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kubectl.json("get", "deployment", f"{self.name}-api", "-n", self.space)
        return found

    @property
    def pods(self) -> int:
        """How many pods are wanted now."""
        return int(self.deployment["spec"]["replicas"])

    @property
    def ready_pods(self) -> int:
        return int(self.deployment.get("status", {}).get("readyReplicas", 0))

    def scaling(self) -> dict[str, Any]:
        """The condition ScalingReady."""
        return condition(self.kubectl, self.space, "ScalingReady", self.name)

    def ready(self) -> None:
        ready(self.kubectl, self.space, self.name)

    def slow_model(self, seconds: float) -> None:
        """Every answer of the model takes so long from now on."""
        script = [{"kind": "answer", "delay": seconds}] * _SCRIPT_LENGTH
        url = f"http://model.{self.space}:8089/control"
        wait_for(lambda: self.http("PUT", url, json=script).status == 204, 60, what="the model to be told")

    def clear_cache(self) -> int:
        """How many answers were removed."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = self.http("DELETE", f"{self.url}/v1/cache", headers=headers)
        assert answer.status == 200, answer
        return int(answer.json()["removed"])

    @contextmanager
    def load(self, *options: str) -> Iterator[Counted]:
        """A counting client inside the cluster's network; what it counted is there afterwards."""
        command = [sys.executable, str(_CLIENT), f"http://{self.address}", *options]
        words = self.cluster.enter_command(["env", f"KEY={self.key}", *command])
        counted = Counted()
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield counted
            finally:
                _stop(process)
            assert process.stdout is not None
            _count(process.stdout.read(), counted)

    def peak(self, seconds: float) -> int:
        """The most pods that were wanted within a time."""
        end, most = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            most = max(most, self.pods)
            time.sleep(0.5)
        return most


def _stop(process: subprocess.Popen[str]) -> None:
    """The client runs below what entered the cluster's network."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    for child in [*found.stdout.split(), str(process.pid)]:
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", child], check=False, capture_output=True)


def _count(text: str, counted: Counted) -> None:
    for line in text.splitlines():
        entry = json.loads(line)
        if "failed" in entry:
            counted.failures.append(entry)
        else:
            counted.answers, counted.slowest = entry["answers"], entry["slowest"]


def _model(repository: Path) -> list[dict[str, Any]]:
    """The Messages API for tests, as a pod."""
    files = {path.name: path.read_text() for path in (repository / "tests" / "llm_server").glob("*.py")}
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "model",
        "image": "ragkube/api:0.1.0",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "llm_server", "--host", "0.0.0.0", "--port", "8089"],
        "env": [{"name": "PYTHONPATH", "value": "/code"}, {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "volumeMounts": [{"name": "code", "mountPath": "/code/llm_server"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8089}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    labels = {"app": "model"}
    pod = {
        "containers": [container],
        "securityContext": security,
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "code", "configMap": {"name": "model"}}],
    }
    meta = {"name": "model"}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "labels": labels}, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": 8089}]},
        },
    ]
