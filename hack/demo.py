"""``make demo``: install the operator on the development cluster and put questions to real documents.

Every command that changes the cluster is printed before it runs. The corpus is the 510 Kubernetes enhancement
proposals where ``RAGKUBE_TEST_DATA`` (or the data folder beside the checkout) has them, else this project's docs.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.testbed.base import Cluster
from cluster.testbed.cli import bring_images, choose
from cluster.testbed.paths import TestbedError

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("RAGKUBE_TEST_DATA") or ROOT.parent / "shared" / "data")
NAMESPACE = "ragkube-demo"
SAMPLE = ROOT / "manifests" / "samples" / "minimal.yaml"
QUESTIONS = {
    "proposals": (
        "How does an indexed Job give each pod its own completion index?",
        "What happens to a pod when its sidecar container exits before the main container?",
        "Why does the kubelet need a grace period on node shutdown?",
    ),
    "docs": (
        "What happens to cached answers when a document changes?",
        "Which file formats can be ingested?",
        "What does ragkube do when Redis is away?",
    ),
}
CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  containers:
    - name: client
      image: %(image)s
      imagePullPolicy: IfNotPresent
      command: [python, -c, "import signal; signal.pause()"]
      env:
        - {name: RAGKUBE_URL, value: "http://%(name)s"}
        - {name: RAGKUBE_API_KEY, valueFrom: {secretKeyRef: {name: %(name)s-admin-key, key: key}}}
        - {name: HOME, value: /tmp}
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {}}]
"""


class Demo:
    """One run against one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._kubectl = cluster.kubectl_command()
        self._images = bring_images(cluster, ("api", "operator", "redis", "weaviate"))
        self._name = _name_of(SAMPLE)

    def run(self) -> None:
        """Install, deploy, ingest, ask, edit, delete."""
        self._install()
        self._deploy()
        self._ask(self._ingest())
        self._edit()
        self._delete()

    def _install(self) -> None:
        say("1. Install the operator")
        self._do("apply", "-k", str(ROOT / "manifests"))
        self._do("-n", "ragkube-system", "rollout", "status", "deployment", "--timeout=120s")

    def _deploy(self) -> None:
        say("2. Ten lines of RagDeployment")
        print(SAMPLE.read_text())
        self._do("apply", "-f", "-", stdin=_namespace())
        started = time.monotonic()
        self._do("-n", NAMESPACE, "apply", "-f", str(SAMPLE))
        self._do("-n", NAMESPACE, "wait", f"ragd/{self._name}", "--for=condition=Ready", "--timeout=300s")
        print(f"Ready after {time.monotonic() - started:.0f} s")
        self._do("-n", NAMESPACE, "get", "ragd,pods")

    def _ingest(self) -> str:
        say("3. A pod in the cluster uploads documents")
        pod = CLIENT % {"image": self._images["api"], "name": self._name}
        self._do("-n", NAMESPACE, "apply", "-f", "-", stdin=pod.encode())
        self._do("-n", NAMESPACE, "wait", "pod/client", "--for=condition=Ready", "--timeout=60s")
        corpus, files = _corpus()
        unpack = "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('/tmp/documents', filter='data')"
        self._in_client("python", "-c", unpack, stdin=_tar(files))
        started = time.monotonic()
        self._ragkube("ingest", "/tmp/documents")
        print(f"ingested in {time.monotonic() - started:.0f} s")
        return corpus

    def _ask(self, corpus: str) -> None:
        say("4. Questions, answered with citations")
        for question in QUESTIONS[corpus]:
            self._ragkube("ask", question)
        print("The same question again comes from the cache:")
        self._ragkube("ask", QUESTIONS[corpus][0])

    def _edit(self) -> None:
        say("5. One more API replica; nothing else changes")
        patch = json.dumps({"spec": {"api": {"replicas": 3}}})
        self._do("-n", NAMESPACE, "patch", f"ragd/{self._name}", "--type=merge", "-p", patch)
        deployment = f"deployment/{self._name}-api"
        self._do("-n", NAMESPACE, "wait", deployment, "--for=jsonpath={.spec.replicas}=3", "--timeout=60s")
        self._do("-n", NAMESPACE, "rollout", "status", deployment, "--timeout=120s")
        self._do("-n", NAMESPACE, "wait", f"ragd/{self._name}", "--for=condition=Ready", "--timeout=60s")
        self._do("-n", NAMESPACE, "get", "ragd,pods")

    def _delete(self) -> None:
        say("6. Delete it; everything goes")
        self._do("-n", NAMESPACE, "delete", f"ragd/{self._name}", "pod/client")
        selector = f"app.kubernetes.io/instance={self._name}"
        self._do("-n", NAMESPACE, "wait", "pods", "-l", selector, "--for=delete", "--timeout=120s")
        self._do("-n", NAMESPACE, "get", "all,secrets,configmaps,pvc", "-l", selector)
        self._do("delete", "namespace", NAMESPACE)

    def _ragkube(self, *words: str) -> None:
        self._in_client("python", "-m", "ragkube_operator.cli", *words)

    def _in_client(self, *words: str, stdin: bytes | None = None) -> None:
        flags = ["exec", "-i", "client", "--"] if stdin else ["exec", "client", "--"]
        self._do("-n", NAMESPACE, *flags, *words, stdin=stdin)

    def _do(self, *words: str, stdin: bytes | None = None) -> None:
        print(f"\n$ kubectl {shlex.join(words)}", flush=True)
        subprocess.run([*self._kubectl, *words], input=stdin, check=True)


def _name_of(sample: Path) -> str:
    lines = (line.strip() for line in sample.read_text().splitlines())
    return next(line.removeprefix("name:").strip() for line in lines if line.startswith("name:"))


def _namespace() -> bytes:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    return json.dumps(body).encode()


def _corpus() -> tuple[str, list[tuple[str, bytes]]]:
    proposals = DATA / "keps" / "corpus.jsonl.gz"
    if proposals.exists():
        return "proposals", list(_proposals(proposals))
    docs = [(path.name, path.read_bytes()) for path in sorted((ROOT / "docs").glob("*.md"))]
    return "docs", docs


def _proposals(path: Path) -> Iterator[tuple[str, bytes]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            proposal = json.loads(line)
            yield f"{proposal['sig']}/{proposal['id'].rsplit('/', 1)[-1]}.md", proposal["text"].encode()


def _tar(files: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, body in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def say(text: str) -> None:
    """A heading."""
    print(f"\n== {text} ==", flush=True)


def main() -> int:
    """Entry point."""
    try:
        cluster = choose()
        if not cluster.running():
            cluster.up()
        Demo(cluster).run()
    except TestbedError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
