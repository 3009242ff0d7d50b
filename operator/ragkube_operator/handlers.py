"""kopf wiring and nothing else: events wake workers. No kopf finalizer, no annotation, no peering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import kopf

from ragkube_operator.crd import GROUP, KIND, PLURAL, VERSION
from ragkube_operator.kopf_storage import NoDiff, NoProgress
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
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "networkpolicies"),
    ("autoscaling", "horizontalpodautoscalers"),
)


def registry(workers: Workers[Key], login: Callable[[], Any]) -> kopf.OperatorRegistry:
    """Everything that kopf shall call."""
    result = kopf.OperatorRegistry()
    scalers = Scalers()

    async def authenticate(**_: Any) -> kopf.ConnectionInfo:
        return connection(await login())

    async def cleanup(**_: Any) -> None:
        await workers.stop()

    async def changed(type: str | None, body: Mapping[str, Any], **_: Any) -> None:  # noqa: A002  # kopf's name
        _tell(workers, resource_key(body), calm=type is None and finished(body))

    async def child_changed(type: str | None, body: Mapping[str, Any], **_: Any) -> None:  # noqa: A002
        key = owner_key(body)
        if key is not None and scalers.news(type, body):
            _tell(workers, key, calm=type is None and settled(body))

    kopf.on.login(registry=result)(authenticate)
    kopf.on.cleanup(registry=result)(cleanup)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=result)(changed)
    for group, plural in CHILDREN:
        kopf.on.event(group=group, plural=plural, registry=result, id=plural)(child_changed)
    return result


def _tell(workers: Workers[Key], key: Key, *, calm: bool) -> None:
    """What a list shows and needs nothing is looked at in turn; everything else at once."""
    if calm:
        workers.look(key)
    else:
        workers.wake(key)


class Scalers:
    """Remembers what each autoscaler decided or complained of: its readings change all the time and mean nothing to us."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def news(self, kind: str | None, body: Mapping[str, Any]) -> bool:
        """Whether an event (``kind``: ADDED, MODIFIED, DELETED, or None from a list) is worth a pass."""
        if body.get("kind") != "HorizontalPodAutoscaler":
            return True
        uid = body["metadata"]["uid"]
        if kind == "DELETED":
            self._told.pop(uid, None)
            return True
        status = body.get("status") or {}
        conditions = [(c["type"], c["status"], c.get("reason")) for c in status.get("conditions") or []]
        measured = [metric.get("type") for metric in status.get("currentMetrics") or []]
        words = repr((body.get("spec"), body["metadata"].get("labels"), sorted(conditions), measured))
        before, self._told[uid] = self._told.get(uid), words
        return before != words


def finished(body: Mapping[str, Any]) -> bool:
    """Whether a RagDeployment was Ready when an operator saw this very spec."""
    conditions = (body.get("status") or {}).get("conditions") or []
    return any(
        item["type"] == "Ready"
        and item["status"] == "True"
        and item.get("observedGeneration") == body["metadata"].get("generation")
        for item in conditions
    )


def settled(body: Mapping[str, Any]) -> bool:
    """Whether a child is as its own spec says, as far as it tells: workloads count their pods."""
    status, wanted = body.get("status") or {}, (body.get("spec") or {}).get("replicas")
    if wanted is None or "deletionTimestamp" in body["metadata"]:
        return "deletionTimestamp" not in body["metadata"]
    current = bool(status.get("observedGeneration") == body["metadata"].get("generation"))
    return current and status.get("readyReplicas", 0) == wanted


def settings() -> kopf.OperatorSettings:
    """kopf without anything that writes."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.scanning.disabled = True
    result.persistence.diffbase_storage = NoDiff()
    result.persistence.progress_storage = NoProgress()
    result.watching.server_timeout = 300
    # the API server sends a bookmark about once a minute: a connection without one is dead
    result.watching.inactivity_timeout = 150
    # short pauses, so that an API server that comes back is noticed soon; after the last one everything starts anew
    result.networking.error_backoffs = (1, 1, 2, 3, 4, 4, 4, 4)
    result.networking.enforce_retry_after = True
    result.networking.connect_timeout = 5
    result.networking.request_timeout = 60
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
