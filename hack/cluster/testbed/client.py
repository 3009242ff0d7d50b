"""What tests do with a cluster: kubectl, HTTP to what runs inside, namespaces, waiting."""

import contextlib
import http.client
import itertools
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cluster.testbed.base import Cluster
from cluster.testbed.paths import TestbedError

T = TypeVar("T")


def wait_for(
    predicate: Callable[[], T],
    timeout: float = 60,
    *,
    what: str = "",
    pause: float = 0.2,
    ignore: tuple[type[Exception], ...] = (),
) -> T:
    """Poll until `predicate` returns something true, and return it; errors of the kinds in `ignore` count as no."""
    end = time.monotonic() + timeout
    seen: object = None
    while True:
        try:
            seen = value = predicate()
            if value:
                return value
        except ignore as error:
            seen = error
        if time.monotonic() > end:
            raise AssertionError(
                f"waited {timeout:.0f} s for {what or predicate}; the last answer was {seen!r}"
            )
        time.sleep(pause)


class KubectlError(TestbedError):
    """kubectl said no; the message is its standard error."""


class Kubectl:
    """`kubectl("get", "pods", "-n", ns)` returns what it printed."""

    def __init__(self, command: list[str]) -> None:
        self._command = command

    def __call__(self, *arguments: str, input: str | None = None, timeout: float = 120) -> str:  # noqa: A002
        done = subprocess.run(
            [*self._command, *arguments],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments[:6])}: {done.stderr.strip()}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The parsed answer of `kubectl get … -o json`."""
        return json.loads(self(*arguments, "-o", "json"))

    def apply(self, *objects: Mapping[str, Any], namespace: str | None = None) -> None:
        """Apply manifests given as dictionaries."""
        where = ["-n", namespace] if namespace else []
        self(*where, "apply", "-f", "-", input="\n---\n".join(json.dumps(one) for one in objects))


@dataclass(frozen=True)
class Response:
    """What a server inside the cluster answered, whatever the status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """`http("GET", "http://service.namespace:8080/path")`, from the host, for every kind of cluster."""

    def __init__(self, proxy: Callable[[], str]) -> None:
        self._proxy = proxy

    def __call__(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
    ) -> Response:
        data = content if json is None else _encode(json)
        sent = {**({} if json is None else {"content-type": "application/json"}), **(headers or {})}
        where = urlsplit(self._proxy())
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, url, body=data, headers=sent)
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.headers.items()), answer.read())


def _encode(document: Any) -> bytes:
    return json.dumps(document).encode()


@dataclass
class Namespaces:
    """Makes namespaces; deletes them with all they hold and makes their volumes available again."""

    cluster: Cluster
    kubectl: Kubectl
    made: list[str] = field(default_factory=list)
    _count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def create(self, prefix: str = "t", *, enforce: str = "restricted") -> str:
        name = f"{prefix}-{int(time.time()) % 10**6:06}-{next(self._count)}"
        labels = {"pod-security.kubernetes.io/enforce": enforce, "ragkube.dev/testbed": "true"}
        metadata = {"name": name, "labels": labels}
        self.kubectl(
            "create",
            "-f",
            "-",
            input=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
        )
        self.made.append(name)
        # a pod is refused until its namespace has the default account
        wait_for(
            lambda: self._has_account(name), 30, what=f"the default account of {name}", ignore=(KubectlError,)
        )
        return name

    def delete(self, name: str) -> None:
        """Empty a namespace and make its volumes available again.

        The namespace itself goes in the background: Kubernetes waits five seconds before it looks at a deleted one,
        and lets nothing be made in it meanwhile.
        """
        self.kubectl("delete", "namespace", name, "--wait=false")
        quickly = ("--all", "--wait=false", "--grace-period=1")  # nothing here is worth a graceful end
        self.kubectl("-n", name, "delete", "pods,persistentvolumeclaims", *quickly)
        self.made.remove(name)
        wait_for(lambda: not self._bound(name), 60, what=f"the volumes of {name} to be released")
        self.cluster.recycle()

    def delete_all(self) -> None:
        for name in list(self.made):
            self.delete(name)

    def _has_account(self, name: str) -> bool:
        found = self.kubectl(
            "-n", name, "get", "serviceaccount/default", "configmap/kube-root-ca.crt", "-o", "name"
        )
        return len(found.split()) == 2

    def _bound(self, name: str) -> list[str]:
        volumes = self.kubectl.json("get", "pv")["items"]
        return [
            volume["metadata"]["name"]
            for volume in volumes
            if volume["status"].get("phase") == "Bound"
            and volume["spec"].get("claimRef", {}).get("namespace") == name
        ]
