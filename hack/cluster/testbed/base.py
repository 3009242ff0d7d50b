"""What every kind of cluster can do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

LEVELS = ("api", "controllers", "nodes", "multinode")


class Cluster(Protocol):
    """A cluster that tests run on."""

    @property
    def kind(self) -> str:
        """own, kind or given."""

    def up(self, extras: Sequence[str] = ()) -> None:
        """Start it anew, with extras (metrics-server)."""

    def down(self) -> None:
        """End it; nothing is left."""

    def running(self) -> bool:
        """Whether it is up."""

    def nodes(self) -> list[str]:
        """The names of the nodes that run pods."""

    def kubeconfig(self) -> Path:
        """For clients on the host."""

    def kubectl_command(self) -> list[str]:
        """kubectl with that kubeconfig."""

    def enter_command(self, command: Sequence[str]) -> list[str]:
        """What runs `command` with KUBECONFIG set, inside the cluster's network where we can."""

    def forward(self, port: int, target: str) -> int:
        """Relay a loopback port of the host to HOST:PORT inside, until interrupted."""

    def proxy(self) -> str:
        """An HTTP proxy on the host that reaches pods and Services by name and address."""

    def load(self, archives: Sequence[Path]) -> None:
        """Bring image archives to every node."""

    def bring(self, names: Sequence[str]) -> None:
        """Build images by their short names and bring them to every node."""

    def node(self, action: str, name: str) -> None:
        """Fail a node, or mend it."""

    def recycle(self) -> int:
        """Make Released volumes available again; how many."""
