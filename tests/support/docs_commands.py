"""What the pages tell a user to type for a cluster: found on the pages, and run as it is there.

Every such command is in exactly one of the three lists here; ``tests/cli/test_docs_commands.py`` holds that.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from support.command import environment
from support.processes import REPOSITORY, tool, wait_for

PAGES: Final = (
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "charts").glob("*/README.md")),
)
_BLOCK = re.compile(r"^ *```console\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"^ *\$ ((?:.*\\\n)*.*)", re.MULTILINE)
_ASSIGNMENT = re.compile(r"^([A-Z_]+)=\$\((.*)\)$")

ON_A_PLATFORM: Final = (
    "kubectl apply -k manifests/",
    "kubectl rollout status deployment/ragkube-operator -n ragkube-system --timeout=120s",
    "kubectl apply -f manifests/samples/minimal.yaml",
    "kubectl get ragd",
    "kubectl get ragd minimal -o wide",
    "kubectl describe ragd minimal",
    "kubectl describe ragd NAME -n NAMESPACE",
    "kubectl get pods -n ragkube-system -l app.kubernetes.io/name=ragkube-operator",
    (
        "kubectl logs -n NAMESPACE -l app.kubernetes.io/instance=NAME,app.kubernetes.io/component=api "
        "--since=1h --tail=-1 | grep request_failed"
    ),
    "kubectl get secret minimal-admin-key -o jsonpath='{.data.key}' | base64 -d",
    "KEY=$(kubectl get secret minimal-admin-key -o jsonpath='{.data.key}' | base64 -d)",
    "kubectl port-forward service/minimal 8080:80 &",
    "RAGKUBE_API_KEY=$KEY ragkube ingest ./runbooks",
    'RAGKUBE_API_KEY=$KEY ragkube ask "QUESTION"',
    "kubectl ragkube status minimal -n team-a",
    "kubectl ragkube status NAME",
    "kubectl ragkube top minimal -n team-a",
    "kubectl ragkube top NAME",
    "kubectl ragkube logs NAME --since 10m",
    "kubectl ragkube logs minimal -n team-a --since 10m --follow",
    'kubectl ragkube ask minimal -n team-a "How do I rotate the admin key?"',
    "ragkube keys new --name chatbot --role reader --tenant support --file keys",
    "ragkube keys new --name sync --role writer --tenant support --file keys",
    "kubectl create secret generic docs-keys --from-file=keys",
    "kubectl create secret generic alertmanager --from-file=alertmanager.yml",
    (
        "kubectl patch ragd NAME -n NAMESPACE --subresource=status --type=json "
        """-p '[{"op": "remove", "path": "/status/apiImage"}]'"""
    ),
)
"""In this order, by ``test_operator.py``, with the minimal sample in a namespace of its own."""

WITH_HELM: Final = (
    "kubectl apply --server-side -f manifests/crd/ragkube.dev_ragdeployments.yaml",
    "helm install ragkube charts/ragkube -n team-a --set rbac.scope=Namespaced --set crds.enabled=false",
    "helm install ragkube charts/ragkube -n ragkube-system --create-namespace --wait",
    "helm test ragkube -n ragkube-system",
    "helm install docs charts/ragkube-deployment -n team-a --set spec.api.replicas=3 --wait",
    "kubectl wait ragd/docs -n team-a --for=condition=Ready --timeout=5m",
    "helm upgrade ragkube charts/ragkube -n ragkube-system --wait",
    "helm rollback ragkube -n ragkube-system --wait",
    "helm upgrade docs charts/ragkube-deployment -n team-a --set spec.api.replicas=4",
    "helm uninstall ragkube -n ragkube-system",
    "helm install ragkube charts/ragkube -n ragkube-system --take-ownership --force-conflicts",
    "helm uninstall docs -n team-a",
    "kubectl delete ragd --all --all-namespaces",
    "kubectl delete crd ragdeployments.ragkube.dev",
)
"""By ``test_helm.py``."""

NOT_RUN: Final[Mapping[str, str]] = {
    "kubectl get --raw /apis/custom.metrics.k8s.io/v1beta1 | jq -r '.resources[].name' | grep ragkube": (
        "needs prometheus-adapter; test_autoscaling.py waits until the operator finds these metrics there"
    ),
    "kubectl get ragd NAME -o jsonpath='{.status.autoscaling}'": "by test_autoscaling.py, with autoscaling on",
    "kubectl wait --for=condition=MonitoringReady ragd/minimal --timeout=5m": "Grafana has no image here",
    "kubectl port-forward service/minimal-grafana 3000": "Grafana has no image here",
    "kubectl get secret minimal-grafana-admin -o jsonpath='{.data.password}' | base64 -d": (
        "needs managed monitoring; the same words as for the key of the API"
    ),
    "kubectl port-forward service/minimal-prometheus 9090": (
        "needs managed monitoring; test_monitoring.py asks that Prometheus by its Service"
    ),
    "helm install docs charts/ragkube-deployment -n team-a --set spec.api.replicas=3": (
        "the same as the one with --wait, which is run"
    ),
}
"""With the reason."""


def for_a_cluster() -> dict[str, list[str]]:
    """Every command in a block that uses kubectl or helm, as one line without its comment, and the pages that have it."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text()):
            if not re.search(r"\b(kubectl|helm)\b", block):
                continue
            for text in _PROMPT.findall(block):
                line = re.sub(r" *\\\n *", " ", text).partition("  #")[0].strip()
                found.setdefault(line, []).append(str(page.relative_to(REPOSITORY)))
    return found


@dataclass
class Reader:
    """Somebody who types what the pages say, in a shell of their own."""

    folder: Path
    """Where they are: has `charts` and `manifests`."""
    env: dict[str, str]
    words: Mapping[str, str]
    """What stands on the page for something of theirs, and what it is: ``NAME``, ``team-a``, ``8080`` …"""
    background: list[subprocess.Popen[str]] = field(default_factory=list)

    def types(self, line: str, *more: str) -> str:
        """Run it to its end, with more options where a test needs them; what it printed.

        Raises:
            AssertionError: it failed.
        """
        assert line in for_a_cluster(), f"no page says: {line}"
        assignment = _ASSIGNMENT.match(line)
        command = " ".join([self._own(assignment[2] if assignment else line), *more])
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        if assignment:
            self.env[assignment[1]] = done.stdout.strip()
        return done.stdout

    def starts(self, line: str, until: str) -> str:
        """Start what does not end by itself, and wait until it says so; what it printed."""
        assert line in for_a_cluster(), f"no page says: {line}"
        path = self.folder / f"output-{len(self.background)}"
        with path.open("w") as output:
            command = ["bash", "-c", f"exec {self._own(line.removesuffix('&').strip())}"]
            self.background.append(
                subprocess.Popen(
                    command, cwd=self.folder, env=self.env, stdout=output, stderr=output, text=True
                )
            )
        wait_for(f"{line} to say {until}", lambda: until in path.read_text(), seconds=60)
        return path.read_text()

    def leaves(self) -> None:
        """End what still runs."""
        for process in self.background:
            process.terminate()
            process.wait(10)
        self.background.clear()

    def _own(self, line: str) -> str:
        for word, own in self.words.items():
            line = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", lambda _, own=own: own, line)  # type: ignore[misc]
        return line


def reader(folder: Path, kubeconfig: Path, namespace: str, words: Mapping[str, str]) -> Reader:
    """Somebody with this namespace as their own, in a folder with the files of the repository that the pages name."""
    for name in ("charts", "manifests"):
        (folder / name).symlink_to(REPOSITORY / name)
    found = yaml.safe_load(kubeconfig.read_text())
    for context in found["contexts"]:
        context["context"]["namespace"] = namespace
    own = folder / "kubeconfig"
    own.write_text(yaml.safe_dump(found))
    programs = (tool("kubectl").parent, tool("helm").parent, Path(sys.executable).parent)
    path = ":".join([*map(str, programs), os.environ["PATH"]])
    return Reader(folder, environment(KUBECONFIG=str(own), PATH=path, HOME=str(folder)), words)
