"""The operator's settings, read from the environment once (docs/operator.md lists the variables)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

from ragkube_operator.errors import ConfigurationError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
LEASE_NAME = "ragkube-operator"


class Variable(NamedTuple):
    """In Markdown, for the docs; ``default`` is a value in backquotes, or words."""

    default: str
    meaning: str


VARIABLES: Final[dict[str, Variable]] = {
    "RAGKUBE_NAMESPACES": Variable(
        "empty: all",
        "namespaces to serve, with commas between. Bind the rights of the ClusterRole in these namespaces only",
    ),
    "RAGKUBE_API_IMAGE": Variable(
        "`ragkube/api:VERSION`",
        "image of API and workers for resources that name none, decided when a resource is first seen and kept in its `status.apiImage`",
    ),
    "RAGKUBE_LOG_LEVEL": Variable(
        "`info`",
        "`debug`, `info`, `warning` or `error`; logs are one JSON object a line",
    ),
    "RAGKUBE_LEASE": Variable(
        "the pod's namespace and `ragkube-operator`; outside a cluster `none`",
        "`NAMESPACE/NAME` of the Lease; `none` works without one: then run one instance only",
    ),
    "RAGKUBE_POD_NAME": Variable(
        "host name and process id",
        "who holds the Lease; the name of the pod, so that its next container may go on at once",
    ),
    "RAGKUBE_HEALTH_ADDRESS": Variable(
        "`0.0.0.0:8081`",
        "`/healthz` and `/readyz` for the kubelet",
    ),
    "RAGKUBE_METRICS_ADDRESS": Variable(
        "`0.0.0.0:9090`",
        "`/metrics` for Prometheus",
    ),
    "RAGKUBE_KUBECONFIG": Variable(
        "empty: the pod's ServiceAccount",
        "a kubeconfig, for an operator that runs outside the cluster",
    ),
    "RAGKUBE_KUBE_CONTEXT": Variable(
        "the current one",
        "context of that kubeconfig",
    ),
}
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class LeaseRef:
    """The Lease that decides which instance is active."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Options:
    """What the environment says."""

    kubeconfig: str | None
    kube_context: str | None
    namespaces: tuple[str, ...]
    api_image: str
    health_host: str
    health_port: int
    metrics_host: str
    metrics_port: int
    log_level: int
    lease: LeaseRef | None
    identity: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Options:
        """Check the environment.

        Raises:
            ConfigurationError: a variable cannot be used; the message names it.
        """
        level = environ.get("RAGKUBE_LOG_LEVEL", "info").lower()
        if level not in LEVELS:
            raise ConfigurationError(f"RAGKUBE_LOG_LEVEL is {level!r}: use one of {', '.join(LEVELS)}")
        health = _address(environ, "RAGKUBE_HEALTH_ADDRESS", "0.0.0.0:8081")
        metrics = _address(environ, "RAGKUBE_METRICS_ADDRESS", "0.0.0.0:9090")
        names = environ.get("RAGKUBE_NAMESPACES", "")
        return cls(
            kubeconfig=environ.get("RAGKUBE_KUBECONFIG") or None,
            kube_context=environ.get("RAGKUBE_KUBE_CONTEXT") or None,
            namespaces=tuple(name.strip() for name in names.split(",") if name.strip()),
            api_image=environ.get("RAGKUBE_API_IMAGE") or f"ragkube/api:{operator_version()}",
            health_host=health[0],
            health_port=health[1],
            metrics_host=metrics[0],
            metrics_port=metrics[1],
            log_level=LEVELS[level],
            lease=_lease(environ.get("RAGKUBE_LEASE", "")),
            # the name of a pod is its own: its next container may go on with the Lease of the one that died
            identity=environ.get("RAGKUBE_POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        )


def _address(environ: Mapping[str, str], variable: str, default: str) -> tuple[str, int]:
    host, _, port = environ.get(variable, default).rpartition(":")
    if not port.isdigit():
        raise ConfigurationError(f"{variable} is no HOST:PORT")
    return host, int(port)


def _lease(text: str) -> LeaseRef | None:
    """``NAMESPACE/NAME``, ``none``, or nothing: the pod's namespace, and no Lease outside a cluster."""
    if text == "none":
        return None
    if text:
        namespace, slash, name = text.partition("/")
        if not (namespace and slash and name):
            raise ConfigurationError("RAGKUBE_LEASE is no NAMESPACE/NAME; `none` runs without a Lease")
        return LeaseRef(namespace, name)
    try:
        return LeaseRef(_POD_NAMESPACE.read_text().strip(), LEASE_NAME)
    except OSError:
        return None


def operator_version() -> str:
    """The version of the installed package."""
    try:
        return version("ragkube")
    except PackageNotFoundError:
        return "0.1.0"
