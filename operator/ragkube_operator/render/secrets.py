"""Secrets: which ones the operator generates, which ones a resource names, and where pods find them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.common import SecretKeyRef
from ragkube_operator.render import names, redis_targets

DIRECTORY = "/etc/ragkube/secrets"
"""Where the pods of API and worker find the files."""

Part = Literal["api", "cache", "vectorStore", "embedding", "llm"]


@dataclass(frozen=True, slots=True)
class GeneratedSecret:
    """A Secret that is created once with a random value and never changed.

    ``key`` holds the random value; each of ``derived`` is a text in which ``{value}`` stands for it.
    """

    name: str
    key: str
    component: names.Component
    derived: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key of the Secret."""
        return (self.key, *self.derived)

    def missing(self, existing: Mapping[str, str], random: Callable[[], str]) -> dict[str, str]:
        """The keys to add to what exists; the random value is taken from there when it is there."""
        value = existing.get(self.key) or random()
        wanted = {self.key: value, **{k: text.replace("{value}", value) for k, text in self.derived.items()}}
        return {key: text for key, text in wanted.items() if not existing.get(key)}


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A key of a Secret that a resource names: ``path`` is the field, ``part`` who needs it."""

    name: str
    key: str
    path: str
    part: Part


@dataclass(frozen=True, slots=True)
class MountedSecret:
    """A key of a Secret as a file of API and worker pods."""

    name: str
    key: str
    file: str


def generated_secrets(deployment: RagDeployment) -> list[GeneratedSecret]:
    """The Secrets that the operator creates for a resource when they do not exist."""
    spec, name = deployment.spec, deployment.name
    found = []
    if spec.auth.mode == "ApiKey" and spec.auth.admin_key_secret_ref is None:
        found.append(GeneratedSecret(names.admin_key(name), "key", "api"))
    if spec.cache.enabled and spec.cache.redis.type == "Managed":
        derived = {"auth.conf": "requirepass {value}\nmasterauth {value}\n"}
        if redis_targets.exporter_runs(deployment):
            derived[redis_targets.password_key(deployment)] = redis_targets.password_file(deployment)
        found.append(GeneratedSecret(names.redis_auth(name), "password", "redis", derived))
    if spec.vector_store.weaviate.type == "Managed":
        found.append(GeneratedSecret(names.weaviate_auth(name), "api-key", "weaviate"))
    if spec.monitoring.type == "Managed" and spec.monitoring.stack.grafana.enabled:
        found.append(GeneratedSecret(names.grafana_admin(name), "password", "grafana"))
    return found


def _candidates(deployment: RagDeployment) -> list[tuple[SecretKeyRef | None, str, Part]]:
    spec = deployment.spec
    redis, weaviate = spec.cache.redis.external, spec.vector_store.weaviate.external
    found: list[tuple[SecretKeyRef | None, str, Part]] = [
        (spec.auth.admin_key_secret_ref, "spec.auth.adminKeySecretRef", "api"),
        (spec.auth.api_keys_secret_ref, "spec.auth.apiKeysSecretRef", "api"),
    ]
    if spec.cache.enabled and redis is not None:
        path = "spec.cache.redis.external"
        found.append((redis.password_secret_ref, f"{path}.passwordSecretRef", "cache"))
        found.append((redis.ca_secret_ref, f"{path}.caSecretRef", "cache"))
    if weaviate is not None:
        path = "spec.vectorStore.weaviate.external.apiKeySecretRef"
        found.append((weaviate.api_key_secret_ref, path, "vectorStore"))
    if spec.embedding.openai is not None:
        path = "spec.embedding.openAI.apiKeySecretRef"
        found.append((spec.embedding.openai.api_key_secret_ref, path, "embedding"))
    if spec.llm.anthropic is not None:
        found.append((spec.llm.anthropic.api_key_secret_ref, "spec.llm.anthropic.apiKeySecretRef", "llm"))
    return found


def referenced_secrets(deployment: RagDeployment) -> list[SecretRef]:
    """The Secrets that must exist because the resource names them."""
    return [
        SecretRef(ref.name, ref.key, path, part)
        for ref, path, part in _candidates(deployment)
        if ref is not None
    ]


_FILES = {
    "spec.auth.adminKeySecretRef": "admin-key",
    "spec.auth.apiKeysSecretRef": "api-keys",
    "spec.cache.redis.external.passwordSecretRef": "redis-password",
    "spec.cache.redis.external.caSecretRef": "redis-ca.crt",
    "spec.vectorStore.weaviate.external.apiKeySecretRef": "weaviate-api-key",
    "spec.embedding.openAI.apiKeySecretRef": "embedding-api-key",
    "spec.llm.anthropic.apiKeySecretRef": "llm-api-key",
}
_GENERATED_FILES = {"api": "admin-key", "redis": "redis-password", "weaviate": "weaviate-api-key"}


def mounted_secrets(deployment: RagDeployment) -> list[MountedSecret]:
    """The files that API and worker read secrets from, in the order of their names."""
    generated = [
        MountedSecret(s.name, s.key, _GENERATED_FILES[s.component])
        for s in generated_secrets(deployment)
        if s.component in _GENERATED_FILES
    ]
    named = [MountedSecret(ref.name, ref.key, _FILES[ref.path]) for ref in referenced_secrets(deployment)]
    return sorted([*generated, *named], key=lambda secret: secret.file)


def volume(deployment: RagDeployment) -> dict[str, Any] | None:
    """One volume with every secret of API and worker as a file, or None when there is none."""
    mounted = mounted_secrets(deployment)
    if not mounted:
        return None
    sources = [{"secret": {"name": m.name, "items": [{"key": m.key, "path": m.file}]}} for m in mounted]
    return {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}}
