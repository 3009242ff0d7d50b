"""A RagDeployment in a cluster, reached by the user's own ``kubectl``: same kubeconfig, same rights, same plugins."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import IO, Any

from ragkube_operator.cli_output import USAGE, CliError
from ragkube_operator.client import JSON, Client
from ragkube_operator.render.names import admin_key

_PATIENCE_SECONDS = 60
_FORWARDED = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")
_RESOURCE = "ragdeployments.ragkube.dev"


class Kubectl:
    """Runs kubectl for one namespace and context."""

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        program = shutil.which("kubectl")
        if program is None:
            raise CliError("this needs kubectl, and there is none on the PATH", exit_code=USAGE)
        self._base = [program, *(("--context", context) if context else ())]
        self._namespaced = ("--namespace", namespace) if namespace else ()

    def run(self, *arguments: str) -> str:
        """What it prints.

        Raises:
            CliError: with kubectl's own words.
        """
        command = [*self._base, *arguments, *self._namespaced]
        try:
            done = subprocess.run(  # noqa: S603  # the user's kubectl, no shell
                command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CliError(f"kubectl {arguments[0]} did not answer in {_PATIENCE_SECONDS} s") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no output"]
            raise CliError(f"kubectl {arguments[0]}: {lines[-1]}")
        return done.stdout

    def json(self, *arguments: str) -> JSON:
        """A ``kubectl get`` as JSON."""
        found: JSON = json.loads(self.run("get", *arguments, "-o", "json"))
        return found

    def raw(self, path: str) -> str:
        """A path of the API server, for example of a pod behind its proxy."""
        return self.run("get", "--raw", path)

    @contextlib.contextmanager
    def stream(self, *arguments: str) -> Iterator[IO[str]]:
        """The lines that it prints as it goes on; it ends with the block."""
        command = [*self._base, *arguments, *self._namespaced]
        with subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            try:
                if running.stdout is not None:
                    yield running.stdout
            finally:
                running.terminate()

    def follow(self, *arguments: str) -> Iterator[str]:
        """The lines that it prints until it ends; its complaints go where ours go.

        Raises:
            CliError: it failed.
        """
        command = [*self._base, *arguments, *self._namespaced]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:  # noqa: S603
            try:
                yield from running.stdout or ()
                code = running.wait()
            finally:
                running.terminate()
        if code:
            raise CliError(f"kubectl {arguments[0]} ended with exit code {code}")

    @contextlib.contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """``http://127.0.0.1:…`` of a Service or pod, while the block lasts."""
        with self.stream("port-forward", target, f":{port}", "--address", "127.0.0.1") as lines:
            said = ""
            for line in lines:
                said = line.strip()
                found = _FORWARDED.search(line)
                if found:
                    yield f"http://{found[1]}"
                    return
        raise CliError(f"kubectl port-forward {target}: {said or 'it ended at once'}")


def deployment(kubectl: Kubectl, name: str | None) -> JSON:
    """The RagDeployment of this name, or the only one of the namespace.

    Raises:
        CliError: there is none, or a choice.
    """
    if name:
        return kubectl.json(_RESOURCE, name)
    found = kubectl.json(_RESOURCE)["items"]
    if len(found) == 1:
        only: JSON = found[0]
        return only
    if not found:
        raise CliError("no RagDeployment in this namespace; -n NAMESPACE looks elsewhere", exit_code=USAGE)
    names = ", ".join(item["metadata"]["name"] for item in found)
    raise CliError(f"which one? There are {names}", exit_code=USAGE)


def pods(kubectl: Kubectl, name: str, component: str) -> list[JSON]:
    """The pods of one part."""
    found: list[JSON] = kubectl.json("pods", "-l", selector(name, component))["items"]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def selector(name: str, *components: str) -> str:
    """Labels of the pods of some parts."""
    parts = f"app.kubernetes.io/component in ({','.join(components)})"
    return f"app.kubernetes.io/name=ragkube,app.kubernetes.io/instance={name},{parts}"


def api_key(kubectl: Kubectl, found: JSON) -> str | None:
    """The administrator's key, where the deployment asks for one and the user may read its Secret."""
    auth = found["spec"].get("auth") or {}
    if auth.get("mode") == "None":
        return None
    reference: dict[str, Any] = auth.get("adminKeySecretRef") or {}
    name, key = reference.get("name") or admin_key(found["metadata"]["name"]), reference.get("key") or "key"
    hint = "give the API key with --api-key-file or RAGKUBE_API_KEY"
    try:
        data = kubectl.json("secret", name).get("data") or {}
    except CliError as error:
        raise CliError(f"the Secret {name} cannot be read; {hint}", details=(error.message,)) from error
    if key not in data:
        raise CliError(f"the Secret {name} has no key {key}; {hint}")
    return base64.b64decode(data[key]).decode().strip()


@contextlib.contextmanager
def api(kubectl: Kubectl, found: JSON, key: str | None, tenant: str | None) -> Iterator[Client]:
    """The API of a deployment, through a forwarded port."""
    key = key or api_key(kubectl, found)
    with (
        kubectl.forwarded(f"service/{found['metadata']['name']}", 80) as url,
        Client(url, api_key=key, tenant=tenant) as client,
    ):
        yield client
