"""A real API server (etcd, kube-apiserver, on demand kube-controller-manager) as local processes, with an audit log."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.processes import REPOSITORY, Process, free_ports, tool, wait_for

OPERATOR_USER = "system:serviceaccount:ragkube-system:ragkube-operator"
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": [OPERATOR_USER]},
        {"level": "None"},
    ],
}
_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE
READS = frozenset({"get", "list", "watch"})


class ControlPlane:
    """Everything that the operator talks to, except kubelets: objects are real, pods never run."""

    def __init__(self, folder: Path) -> None:
        programs = tool("kube-apiserver").parent
        self.folder = folder
        self._kubectl = programs / "kubectl"
        etcd, peer, secure = free_ports(3)
        self.server = f"https://127.0.0.1:{secure}"
        self.audit_log = folder / "audit.log"
        self._keys()
        (folder / "audit.json").write_text(json.dumps(_AUDIT))
        (folder / "tokens.csv").write_text("admin-token,admin,admin,system:masters\n")
        self.kubeconfig = self.write_kubeconfig("admin", "admin-token")
        client, peers = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        self.etcd = Process(
            [programs / "etcd", "--data-dir", folder / "etcd", "--unsafe-no-fsync",
             "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peers,
             "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"],
            folder / "etcd.log",
        )  # fmt: skip
        self.api = Process(
            [programs / "kube-apiserver", "--etcd-servers", client, "--bind-address", "127.0.0.1",
             "--secure-port", str(secure), "--cert-dir", folder / "certs",
             "--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC",
             "--service-account-issuer", "https://kubernetes.default.svc",
             "--service-account-key-file", folder / "sa.pub",
             "--service-account-signing-key-file", folder / "sa.key",
             "--token-auth-file", folder / "tokens.csv", "--audit-policy-file", folder / "audit.json",
             "--audit-log-path", self.audit_log],
            folder / "api.log",
        )  # fmt: skip
        self.controllers = Process(
            [programs / "kube-controller-manager", "--kubeconfig", self.kubeconfig, "--leader-elect=false",
             "--secure-port", "0", "--service-account-private-key-file", folder / "sa.key"],
            folder / "controllers.log",
        )  # fmt: skip

    def _keys(self) -> None:
        key, public = self.folder / "sa.key", self.folder / "sa.pub"
        for command in (
            ["genrsa", "-out", str(key), "2048"],
            ["rsa", "-in", str(key), "-pubout", "-out", str(public)],
        ):
            subprocess.run(["openssl", *command], check=True, capture_output=True)

    def write_kubeconfig(self, user: str, token: str) -> Path:
        path = self.folder / f"{user}.conf"
        cluster = {"server": self.server, "insecure-skip-tls-verify": True}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(document))
        return path

    def start(self, *, controllers: bool = True) -> None:
        self.etcd.start()
        self.start_api()
        if controllers:
            self.controllers.start()

    def start_api(self) -> None:
        """Until it is ready, also after it was killed; one that gives up, as etcd is slow, is started again."""

        def ready() -> bool:
            if not self.api.alive:
                self.api.start()
            return self.kubectl("get", "--raw", "/readyz") == "ok"

        wait_for("the API server is ready", ready)

    def stop(self) -> None:
        for process in (self.controllers, self.api, self.etcd):
            process.kill()

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        try:
            done = subprocess.run(
                [self._kubectl, "--kubeconfig", self.kubeconfig, *arguments],
                input=stdin, capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"kubectl {' '.join(arguments)}: not ended after {error.timeout:g} s"
            ) from error
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))

    def run_pods(self, namespace: str) -> None:
        """What a kubelet would report: every pod runs and is ready."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
        body = json.dumps({"status": {"phase": "Running", "conditions": [ready]}}).encode()
        for pod in self.get("pods", "-n", namespace, "--field-selector", "status.phase=Pending")["items"]:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status"
            headers = {"Authorization": "Bearer admin-token", "Content-Type": "application/merge-patch+json"}
            request = urllib.request.Request(self.server + path, body, headers, method="PATCH")
            with urllib.request.urlopen(request, context=_UNVERIFIED, timeout=10):
                continue

    def install(self) -> Path:
        """``kubectl apply -k manifests/``; a kubeconfig with exactly the operator's rights."""
        self.kubectl("apply", "-k", str(REPOSITORY / "manifests"))
        self.kubectl("wait", "crd/ragdeployments.ragkube.dev", "--for=condition=Established", "--timeout=30s")
        account = ("-n", "ragkube-system", "ragkube-operator")
        token = self.kubectl("create", "token", *account, "--duration=2h").strip()
        return self.write_kubeconfig("operator", token)

    def operator_requests(self, *, writes: bool) -> list[dict[str, Any]]:
        """What the operator asked of the API server, as the API server counted it; its Lease not counted."""
        text = self.audit_log.read_text() if self.audit_log.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may be under way
        entries = [
            entry for line in lines if '"resource":"leases"' not in line for entry in [json.loads(line)]
        ]
        return [entry for entry in entries if (entry["verb"] not in READS) is writes]


@dataclass
class OperatorProcess:
    """The operator as a process of its own, like in its pod."""

    kubeconfig: Path
    folder: Path
    options: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "ragkube_operator")
    _process: Process | None = None

    def start(self) -> None:
        self.health_port, self.metrics_port = free_ports(2)
        env = {
            "RAGKUBE_KUBECONFIG": str(self.kubeconfig),
            "RAGKUBE_HEALTH_ADDRESS": f"127.0.0.1:{self.health_port}",
            "RAGKUBE_METRICS_ADDRESS": f"127.0.0.1:{self.metrics_port}",
            "PYTHONPATH": str(REPOSITORY / "operator"),
            **self.options,
        }
        self._process = Process([sys.executable, *self.program], self.folder / "operator.log", env)
        self._process.start()

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        """What the kubelet would see; (0, {}) while nothing listens."""
        url = f"http://127.0.0.1:{self.health_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status), json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    @property
    def leading(self) -> bool:
        return self.metric("ragkube_operator_leader") == 1

    def metric(self, name: str, keep: Callable[[str], bool] = lambda _: True) -> float:
        """The sum of a metric's samples (of those whose line is kept); 0 while the process does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name and keep(line)
        )

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()


def require_openssl() -> None:
    if not any(
        (Path(folder) / "openssl").exists() for folder in os.environ.get("PATH", "").split(os.pathsep)
    ):
        pytest.skip("this machine has no openssl")
