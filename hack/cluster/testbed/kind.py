"""kind, where a Docker engine answers: one control plane and three workers."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.testbed import images, programs
from cluster.testbed.gateway import Gateway
from cluster.testbed.paths import State, TestbedError, UnavailableError
from cluster.testbed.shell import Timer, run, say

NODE_IMAGE = "kindest/node:v1.36.1"
_ACTIONS = {
    "kill": ("kill",),
    "start": ("start",),
    "freeze": ("pause",),
    "thaw": ("unpause",),
    "cut": ("network", "disconnect", "kind"),
    "join": ("network", "connect", "kind"),
}


def docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        return (
            subprocess.run(["docker", "info"], capture_output=True, timeout=15, check=False).returncode == 0
        )
    except subprocess.TimeoutExpired:
        return False


class KindCluster:
    """A kind cluster under a name of its own; the user's kubeconfig is not touched."""

    kind = "kind"

    def __init__(self, state: State, size: int = 3) -> None:
        self.state = state
        self._name = f"ragkube-{state.id.removeprefix('rk')}"
        self._size = size
        self._gateway = Gateway(state, self.kubectl_command)

    def up(self, extras: Sequence[str] = ()) -> None:
        if extras:
            raise TestbedError(f"not offered on kind: {', '.join(extras)}")
        self.down()
        self.state.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        roles = ["control-plane", *["worker"] * self._size]
        config = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n"
        config += "".join(f"- role: {role}\n" for role in roles)
        with Timer("cluster up"):
            arguments = ["--name", self._name, "--image", NODE_IMAGE, "--wait", "300s", "--config", "-"]
            self._kind(
                "create", "cluster", "--kubeconfig", str(self.state.kubeconfig), *arguments, stdin=config
            )

    def down(self) -> None:
        self._gateway.stop()
        self._kind("delete", "cluster", "--name", self._name, "--kubeconfig", str(self.state.kubeconfig))
        shutil.rmtree(self.state.root, ignore_errors=True)

    def running(self) -> bool:
        return self.state.kubeconfig.exists() and self._name in self._kind("get", "clusters").split()

    def nodes(self) -> list[str]:
        return [f"{self._name}-worker{index if index > 1 else ''}" for index in range(1, self._size + 1)]

    def kubeconfig(self) -> Path:
        return self.state.kubeconfig

    def kubectl_command(self) -> list[str]:
        return [programs.kubectl(), f"--kubeconfig={self.state.kubeconfig}"]

    def enter_command(self, command: Sequence[str]) -> list[str]:
        return ["env", f"KUBECONFIG={self.state.kubeconfig}", *command]

    def forward(self, port: int, target: str) -> int:
        return self._gateway.forward(port, target)

    def proxy(self) -> str:
        return self._gateway.proxy()

    def load(self, archives: Sequence[Path]) -> None:
        for archive in archives:
            self._kind("load", "image-archive", str(archive), "--name", self._name)

    def bring(self, names: Sequence[str]) -> None:
        self.load(images.archives(names))

    def node(self, action: str, name: str) -> None:
        if name not in self.nodes():
            raise TestbedError(f"no node {name!r}; there are {', '.join(self.nodes())}")
        run(["docker", *_ACTIONS[action], name])

    def recycle(self) -> int:
        return 0  # kind's volumes are made on demand and deleted with their claims

    def _kind(self, *arguments: str, stdin: str | None = None) -> str:
        program = shutil.which("kind")
        if not program:
            say("a Docker engine answers, kind is not installed")
            raise UnavailableError("install kind, or set RAGKUBE_KUBECONFIG to a cluster for tests")
        return run([program, *arguments], env={**os.environ}, stdin=stdin)
