"""Secrets of a resource: generated ones are made once, referenced ones are only looked at."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from ragkube_operator.engine import HASH_ANNOTATION, OWNER_LABEL, SECRET, Owner, claim, owned, stamp
from ragkube_operator.kube import Kind, Manifest
from ragkube_operator.render import GeneratedSecret, SecretRef
from ragkube_operator.render.names import labels
from ragkube_operator.status import Part, Reason

log = structlog.get_logger(__name__)

_TOKEN_BYTES = 32


class Client(Protocol):
    """What is needed of the Kubernetes client: never a list of Secrets, only those by name."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The live object, or None."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create."""

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        """Merge patch."""


def _random() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


@dataclass
class SecretStore:
    """The Secrets that one pass has read."""

    client: Client
    namespace: str
    random: Callable[[], str] = _random
    _read: dict[str, Manifest | None] = field(default_factory=dict)

    async def value(self, name: str, key: str) -> str | None:
        """The text of a key, or None when Secret or key is missing."""
        text = _decoded(await self._get(name)).get(key)
        return text.strip() if text else None

    async def exists(self, name: str) -> bool:
        """Whether the Secret is there, whatever it holds."""
        return await self._get(name) is not None

    async def ensure(self, owner: Owner, wanted: Sequence[GeneratedSecret]) -> None:
        """Create what is missing with random values; what is there stays as it is.

        Raises:
            StalledError: somebody else has a Secret of that name.
            KubeError: the one of a former resource is still being deleted.
        """
        for secret in wanted:
            live = await self._get(secret.name)
            if live is None:
                self._read[secret.name] = await self._create(owner, secret)
            else:
                claim(live, owner, SECRET)
                await self._complete(live, secret, owner)

    async def _get(self, name: str) -> Manifest | None:
        if name not in self._read:
            self._read[name] = await self.client.get(SECRET, self.namespace, name)
        return self._read[name]

    async def _create(self, owner: Owner, secret: GeneratedSecret) -> Manifest:
        body: Manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": secret.name, "labels": labels(owner.name, secret.component)},
        }
        manifest = stamp(body, owner)
        del manifest["metadata"]["annotations"][HASH_ANNOTATION]  # a Secret is never applied again
        manifest["data"] = _encoded(secret.missing({}, self.random))
        log.info("secret_created", secret=secret.name, namespace=self.namespace)
        return await self.client.create(manifest)

    async def _complete(self, live: Manifest, secret: GeneratedSecret, owner: Owner) -> None:
        """Add keys that are gone or that a newer operator needs, made from the value that is in use."""
        added = _encoded(secret.missing(_decoded(live), self.random))
        if not added and owned(live, owner):
            return
        log.info("secret_completed", secret=secret.name, namespace=self.namespace, keys=sorted(added))
        change: dict[str, Any] = {"data": added}
        change["metadata"] = {
            "resourceVersion": live["metadata"]["resourceVersion"],
            "labels": {OWNER_LABEL: owner.uid},
            "ownerReferences": [owner.reference()],
        }
        self._read[secret.name] = await self.client.merge(SECRET, self.namespace, secret.name, change)


def _encoded(data: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}


def _decoded(secret: Manifest | None) -> dict[str, str]:
    """What can be read as text; anything else counts as missing."""
    found: dict[str, str] = {}
    for key, value in ((secret or {}).get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return found


async def check(store: SecretStore, wanted: Sequence[SecretRef]) -> Part:
    """Whether every referenced key is there, and what to do when not."""
    missing = [ref for ref in wanted if not await store.value(ref.name, ref.key)]
    if not missing:
        return Part(True, Reason.SECRETS_FOUND, "Every Secret that the spec names is there")
    lines: list[str] = []
    for ref in missing:
        there = await store.exists(ref.name)
        lack = f"has no key {ref.key}" if there else f"with key {ref.key} does not exist"
        lines.append(f"Secret {ref.name} {lack} ({ref.path})")
    first = missing[0]
    hint = f"kubectl create secret generic {first.name} -n {store.namespace} --from-literal={first.key}=VALUE"
    return Part(False, Reason.SECRET_MISSING, f"{'; '.join(lines)}. Create it, for example: {hint}")
