"""The commands that look at a RagDeployment in a cluster: which one, and through what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragkube_operator import cli_deployment, cli_kube, cli_logs, cli_top
from ragkube_operator.cli_output import USAGE, CliError, Output
from ragkube_operator.client import Client


def target(words: Sequence[str], *, in_cluster: bool) -> tuple[str | None, str]:
    """The RagDeployment, when one is named, and the question.

    Raises:
        CliError: there are more words than a name and a question.
    """
    if len(words) == 1:
        return None, words[0]
    if len(words) == 2:
        return words[0], words[1]
    hint = "kubectl ragkube ask" if in_cluster else "ragkube ask"
    raise CliError(f'put the question in quotes: {hint} [NAME] "QUESTION"', exit_code=USAGE)


@dataclass(frozen=True)
class Where:
    """A RagDeployment (or the only one), a namespace and a context of the user's kubeconfig."""

    name: str | None
    namespace: str | None
    context: str | None

    @property
    def _kubectl(self) -> cli_kube.Kubectl:
        return cli_kube.Kubectl(self.namespace, self.context)

    @contextlib.contextmanager
    def client(self, key: str | None, tenant: str | None) -> Iterator[Client]:
        """Its API, with this key or else the administrator's."""
        kubectl = self._kubectl
        with cli_kube.api(kubectl, cli_kube.deployment(kubectl, self.name), key, tenant) as made:
            yield made

    def status(self, output: Output, *, as_json: bool) -> bool:
        """Print it; False when it is not Ready."""
        kubectl = self._kubectl
        return cli_deployment.status(
            kubectl, output, cli_kube.deployment(kubectl, self.name), as_json=as_json
        )

    def top(self, output: Output, *, seconds: float, as_json: bool) -> None:
        """Print what its API pods do."""
        kubectl = self._kubectl
        found = cli_kube.deployment(kubectl, self.name)
        cli_top.top(kubectl, output, found, seconds=seconds, as_json=as_json)

    def logs(
        self, output: Output, components: tuple[str, ...], options: tuple[str, ...], *, follow: bool
    ) -> None:
        """Print the lines of its pods."""
        unknown = sorted(set(components) - set(cli_logs.COMPONENTS))
        if unknown:
            raise CliError(f"--component {unknown[0]}: use {', '.join(cli_logs.COMPONENTS)}", exit_code=USAGE)
        kubectl = self._kubectl
        name = self.name or str(cli_kube.deployment(kubectl, None)["metadata"]["name"])
        cli_logs.logs(kubectl, output, name, components, options, follow=follow)
