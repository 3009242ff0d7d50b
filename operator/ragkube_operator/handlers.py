"""kopf wiring and nothing else: events wake workers. No kopf finalizer, no annotation, no peering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import kopf

from ragkube_operator.crd import GROUP, KIND, PLURAL, VERSION
from ragkube_operator.kube import Credentials
from ragkube_operator.reconciler import Key
from ragkube_operator.workers import Workers

MANAGED_BY = "app.kubernetes.io/managed-by=ragkube"
# what the API server filters by the label, so that other people's objects never reach us
CHILDREN: Sequence[tuple[str, str]] = (
    ("apps", "deployments"),
    ("apps", "statefulsets"),
    ("", "services"),
    ("", "configmaps"),
    ("", "serviceaccounts"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "networkpolicies"),
)


def registry(workers: Workers[Key], login: Callable[[], Any]) -> kopf.OperatorRegistry:
    """Everything that kopf shall call."""
    result = kopf.OperatorRegistry()

    async def authenticate(**_: Any) -> kopf.ConnectionInfo:
        return connection(await login())

    async def cleanup(**_: Any) -> None:
        await workers.stop()

    async def changed(body: Mapping[str, Any], **_: Any) -> None:
        workers.wake(resource_key(body))

    async def child_changed(body: Mapping[str, Any], **_: Any) -> None:
        key = owner_key(body)
        if key is not None:
            workers.wake(key)

    kopf.on.login(registry=result)(authenticate)
    kopf.on.cleanup(registry=result)(cleanup)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=result)(changed)
    for group, plural in CHILDREN:
        kopf.on.event(group=group, plural=plural, registry=result, id=plural)(child_changed)
    return result


def settings() -> kopf.OperatorSettings:
    """kopf without anything that writes."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.scanning.disabled = True
    result.watching.server_timeout = 300
    result.watching.inactivity_timeout = 330
    for group, plural in CHILDREN:
        result.watching.label_selectors[partial(_is, group, plural)] = MANAGED_BY
    return result


def _is(group: str, plural: str, resource: Any) -> bool:
    return (resource.group, resource.plural) == (group, plural)


def connection(credentials: Credentials) -> kopf.ConnectionInfo:
    """Our credentials in kopf's words; kopf asks again when the server refuses them."""
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=credentials.ca_file,
        insecure=credentials.insecure,
        certificate_path=credentials.certificate_file,
        private_key_path=credentials.key_file,
        scheme="Bearer" if credentials.token else None,
        token=credentials.token,
    )


def resource_key(body: Mapping[str, Any]) -> Key:
    """The key of a RagDeployment."""
    meta = body["metadata"]
    return Key(meta["namespace"], meta["name"], meta["uid"])


def owner_key(body: Mapping[str, Any]) -> Key | None:
    """The key of the RagDeployment that a child belongs to."""
    for reference in body["metadata"].get("ownerReferences") or []:
        ours = reference["kind"] == KIND and reference["apiVersion"].startswith(f"{GROUP}/")
        if ours:
            return Key(body["metadata"]["namespace"], reference["name"], reference["uid"])
    return None
