"""Which Redis pods the exporter asks, and its file of passwords."""

from __future__ import annotations

import json

from ragkube_operator.crd import RagDeployment
from ragkube_operator.render import names


def exporter_runs(deployment: RagDeployment) -> bool:
    """Only a managed Redis is asked: an existing one has an operator of its own."""
    spec = deployment.spec
    return spec.monitoring.type != "None" and spec.cache.enabled and spec.cache.redis.type == "Managed"


def targets(deployment: RagDeployment) -> list[str]:
    """The address of each Redis pod, as the exporter's password file spells it."""
    name = names.redis(deployment.name)
    host = f"{name}.{deployment.namespace}.svc:{names.REDIS_PORT}"
    return [f"redis://{name}-{pod}.{host}" for pod in range(deployment.spec.cache.redis.server.pod_count)]


def address(deployment: RagDeployment) -> str:
    """Where Prometheus finds the exporter."""
    return f"{names.redis_exporter(deployment.name)}.{deployment.namespace}.svc:{names.REDIS_EXPORTER_PORT}"


def password_key(deployment: RagDeployment) -> str:
    """Key of the Secret with the exporter's file; another number of pods is another file."""
    return f"exporter-{deployment.spec.cache.redis.server.pod_count}.json"


def password_file(deployment: RagDeployment) -> str:
    """The exporter's file, with ``{value}`` for the password."""
    return json.dumps(dict.fromkeys(targets(deployment), "{value}"))
