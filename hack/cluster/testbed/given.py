"""A cluster that the user gave on purpose with RAGKUBE_KUBECONFIG; never the current context of somebody who did not."""

from collections.abc import Sequence
from pathlib import Path

from cluster.testbed import images, programs
from cluster.testbed.gateway import Gateway
from cluster.testbed.paths import State, TestbedError
from cluster.testbed.shell import run, say


class GivenCluster:
    """We use it, and neither start nor end it."""

    kind = "given"

    def __init__(self, state: State, kubeconfig: Path) -> None:
        self.state = state
        self._kubeconfig = kubeconfig
        self._gateway = Gateway(state, self.kubectl_command)

    def up(self, extras: Sequence[str] = ()) -> None:
        if extras:
            raise TestbedError(f"install {', '.join(extras)} in your cluster yourself")
        if not self.running():
            raise TestbedError(f"the cluster of {self._kubeconfig} does not answer")

    def down(self) -> None:
        self._gateway.stop()

    def running(self) -> bool:
        return "ok" in run([*self.kubectl_command(), "get", "--raw", "/readyz"], check=False)

    def nodes(self) -> list[str]:
        listed = run([*self.kubectl_command(), "get", "nodes", "-o", "name"])
        return [name.removeprefix("node/") for name in listed.split()]

    def kubeconfig(self) -> Path:
        return self._kubeconfig

    def kubectl_command(self) -> list[str]:
        return [programs.kubectl(), f"--kubeconfig={self._kubeconfig}"]

    def enter_command(self, command: Sequence[str]) -> list[str]:
        return ["env", f"KUBECONFIG={self._kubeconfig}", *command]

    def forward(self, port: int, target: str) -> int:
        return self._gateway.forward(port, target)

    def proxy(self) -> str:
        return self._gateway.proxy()

    def load(self, archives: Sequence[Path]) -> None:
        raise TestbedError(f"push {archives[0].name} to where the nodes of your cluster pull from")

    def bring(self, names: Sequence[str]) -> None:
        wanted = ", ".join(images.reference(name) for name in names)
        say(f"a given cluster: taking for granted that its nodes can pull {wanted}")

    def node(self, action: str, name: str) -> None:
        raise TestbedError(f"node {action} {name}: nodes of a given cluster are not ours to fail")

    def recycle(self) -> int:
        return 0
