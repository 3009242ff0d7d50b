"""The settings file of API and worker: in a cluster, and on one machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ragkube_operator.crd import RagDeployment
from ragkube_operator.crd.access import Limits
from ragkube_operator.crd.answers import Semantic, share
from ragkube_operator.crd.base import amount, seconds
from ragkube_operator.crd.cache import ExternalRedis
from ragkube_operator.crd.common import SecretKeyRef
from ragkube_operator.crd.documents import Source
from ragkube_operator.crd.models import OpenAI
from ragkube_operator.crd.store import ExternalWeaviate
from ragkube_operator.render import names
from ragkube_operator.render.secrets import DIRECTORY

DRAIN_SECONDS = 5
"""How long a pod serves on after SIGTERM, until every node has taken it out of the Service."""
SOURCES = "/sources"
"""Where volumes of sources are mounted."""


class _Files:
    """Paths of secrets: by purpose in a cluster, by name of the Secret on one machine."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root

    def path(self, purpose: str, ref: SecretKeyRef | None) -> str | None:
        if ref is None:
            return None
        return f"{DIRECTORY}/{purpose}" if self._root is None else str(self._root / ref.name / ref.key)


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def settings(deployment: RagDeployment) -> dict[str, Any]:
    """The settings of API and worker pods."""
    spec, files = deployment.spec, _Files()
    timeout = seconds(spec.api.request_timeout)
    return {
        **_shared(deployment, files),
        "namespace": deployment.namespace,
        "server": {
            "host": "0.0.0.0",  # noqa: S104 - a pod is reached at its address
            "port": names.API_PORT,
            "drain_seconds": DRAIN_SECONDS,
            "grace_seconds": timeout,
            "max_concurrency": spec.api.max_concurrency,
            "request_timeout_seconds": timeout,
            "slow_request_seconds": seconds(spec.api.slow_request_threshold),
        },
        "auth": _auth(deployment, files),
        "store": _store(deployment, files),
        "cache": _cache(deployment, files),
        "documents": _documents(deployment, [_source(s, _mounted(s)) for s in spec.documents.sources]),
        "log": {"level": spec.api.log_level.lower(), "format": "json"},
    }


def local_settings(
    deployment: RagDeployment, *, data: Path, port: int, base: Path, secrets: Path | None = None
) -> dict[str, Any]:
    """The settings with which one process on one machine stands in for everything that is Managed.

    Args:
        deployment: the resource.
        data: directory of the index; also of the admin key, when the file asks for keys explicitly.
        port: port on the loopback interface.
        base: directory that relative paths of sources start from: where the file is.
        secrets: directory with a file ``SECRET/KEY`` for each Secret the resource names; default ``data/secrets``.
    """
    spec = deployment.spec
    files = _Files(secrets or data / "secrets")
    sources = [_source(s, str(base / s.directory.path)) for s in spec.documents.sources]
    return {
        **_shared(deployment, files),
        "server": {
            "host": "127.0.0.1",
            "port": port,
            "drain_seconds": 0,
            "grace_seconds": 5,
            "max_concurrency": spec.api.max_concurrency,
            "request_timeout_seconds": seconds(spec.api.request_timeout),
            "slow_request_seconds": seconds(spec.api.slow_request_threshold),
        },
        "auth": _local_auth(deployment, data, files),
        "store": _store(deployment, files, embedded=data / "index"),
        "cache": _cache(deployment, files, local=True),
        "documents": _documents(deployment, sources),
        "log": {"level": spec.api.log_level.lower(), "format": "text"},
    }


def _auth(deployment: RagDeployment, files: _Files) -> dict[str, Any]:
    auth = deployment.spec.auth
    if auth.mode == "None":
        return {"mode": "none"}
    keys = files.path("api-keys", auth.api_keys_secret_ref)
    return _present(mode="api-key", admin_key_file=f"{DIRECTORY}/admin-key", keys_file=keys)


def _shared(deployment: RagDeployment, files: _Files) -> dict[str, Any]:
    retrieval = deployment.spec.retrieval
    return {
        "version": 1,
        "deployment": deployment.name,
        "limits": _limits(deployment.spec.limits),
        "embedding": _embedding(deployment, files),
        "llm": _llm(deployment, files),
        "retrieval": {
            "k": retrieval.k,
            "alpha": retrieval.alpha,
            "chunk_characters": retrieval.chunk_characters,
        },
    }


def _local_auth(deployment: RagDeployment, data: Path, files: _Files) -> dict[str, Any]:
    """Open on the loopback interface unless the file says otherwise itself: a default does not count."""
    auth = deployment.spec.auth
    if auth.mode == "None" or not auth.model_fields_set:
        return {"mode": "none"}
    key = files.path("admin-key", auth.admin_key_secret_ref) or str(data / "admin-key")
    keys = files.path("api-keys", auth.api_keys_secret_ref)
    return _present(mode="api-key", admin_key_file=key, keys_file=keys)


def _limits(limits: Limits) -> dict[str, Any]:
    tiers = {t.name: {"requests_per_minute": t.requests_per_minute, "burst": t.at_once} for t in limits.tiers}
    return _present(tiers=tiers, default_tier=limits.default_tier)


def _embedding(deployment: RagDeployment, files: _Files) -> dict[str, Any]:
    embedding = deployment.spec.embedding
    if isinstance(embedding.openai, OpenAI):
        server = embedding.openai
        return _present(
            kind="openai",
            url=server.url,
            model=server.model,
            dimensions=server.dimensions,
            api_key_file=files.path("embedding-api-key", server.api_key_secret_ref),
            batch_size=server.batch_size,
            timeout_seconds=seconds(server.timeout),
        )
    return {"kind": "wordllama", "dimensions": embedding.wordllama.dimensions if embedding.wordllama else 256}


def _llm(deployment: RagDeployment, files: _Files) -> dict[str, Any]:
    model = deployment.spec.llm.anthropic
    if model is None:
        return {"kind": "extractive"}
    prices = {
        price.model: {"input_per_mtok": price.input_per_mtok, "output_per_mtok": price.output_per_mtok}
        for price in model.prices
    }
    return _present(
        kind="anthropic",
        model=model.model,
        allowed_models=list(model.allowed_models),
        base_url=model.base_url,
        api_key_file=files.path("llm-api-key", model.api_key_secret_ref),
        max_tokens=model.max_tokens,
        timeout_seconds=seconds(model.timeout),
        max_retries=model.max_retries,
        prices=prices,
    )


def _store(deployment: RagDeployment, files: _Files, *, embedded: Path | None = None) -> dict[str, Any]:
    weaviate = deployment.spec.vector_store.weaviate
    if weaviate.external is not None:
        return _external_store(deployment, weaviate.external, files)
    if embedded is not None:
        return {"kind": "embedded", "path": str(embedded)}
    host = f"{names.weaviate(deployment.name)}.{deployment.namespace}.svc"
    return {
        "kind": "weaviate",
        "http_host": host,
        "http_port": names.WEAVIATE_HTTP_PORT,
        "grpc_host": host,
        "grpc_port": names.WEAVIATE_GRPC_PORT,
        "api_key_file": f"{DIRECTORY}/weaviate-api-key",
        "replication_factor": min(weaviate.server.replicas, 3),
    }


def _external_store(deployment: RagDeployment, external: ExternalWeaviate, files: _Files) -> dict[str, Any]:
    return _present(
        kind="weaviate",
        http_host=external.http_host,
        http_port=external.http_port,
        grpc_host=external.grpc_host or external.http_host,
        grpc_port=external.grpc_port,
        secure=external.secure,
        api_key_file=files.path("weaviate-api-key", external.api_key_secret_ref),
        collection_prefix=external.collection_prefix or _own_prefix(deployment),
        replication_factor=external.replication_factor,
    )


def _own_prefix(deployment: RagDeployment) -> str:
    """Several deployments may share one Weaviate."""
    identity = f"{deployment.namespace}/{deployment.name}"
    return f"Ragkube{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _cache(deployment: RagDeployment, files: _Files, *, local: bool = False) -> dict[str, Any]:
    cache = deployment.spec.cache
    answers, stale = cache.answers, cache.answers.stale_while_revalidate
    return {
        "enabled": cache.enabled,
        "backend": _cache_backend(deployment, files, local=local),
        "local": {"max_entries": cache.local.max_entries, "max_bytes": int(amount(cache.local.max_memory))},
        "answer_ttl_seconds": seconds(answers.ttl),
        "classes": [
            {"name": c.name, "ttl_seconds": seconds(c.ttl), "words": list(c.words)} for c in answers.classes
        ],
        "stale_while_revalidate_seconds": seconds(stale) if stale is not None else 0,
        "embedding_ttl_seconds": seconds(cache.embeddings.ttl),
        "retrieval_ttl_seconds": seconds(cache.retrieval.ttl),
        "document_ttl_seconds": seconds(cache.documents.ttl),
        **({} if cache.semantic is None else {"semantic": _semantic(cache.semantic)}),
    }


def _semantic(semantic: Semantic) -> dict[str, Any]:
    verifier = semantic.verifier
    return _present(
        max_error_rate=share(semantic.max_error_rate),
        audit_rate=share(semantic.audit_rate),
        verifier_url=verifier.url if verifier is not None else None,
        verifier_threshold=verifier.threshold if verifier is not None and verifier.url is not None else None,
        verifier_model=verifier.model if verifier is not None else None,
    )


def _cache_backend(deployment: RagDeployment, files: _Files, *, local: bool) -> dict[str, Any]:
    cache, name, namespace = deployment.spec.cache, deployment.name, deployment.namespace
    prefix = f"ragkube.{namespace}.{name}"
    if cache.enabled and cache.redis.external is not None:
        return _external_cache(cache.redis.external, files, prefix)
    if local or not cache.enabled:
        return {"kind": "memory"}
    service = f"{names.redis(name)}.{namespace}.svc"
    # Three pods exist at any size: these seeds stay the same when shards are added.
    seeds = [service, *(f"{names.redis(name)}-{pod}.{service}" for pod in range(3))]
    return {
        "kind": "redis",
        "nodes": [f"{seed}:{names.REDIS_PORT}" for seed in seeds],
        "password_file": f"{DIRECTORY}/redis-password",
        "key_prefix": prefix,
    }


def _external_cache(external: ExternalRedis, files: _Files, prefix: str) -> dict[str, Any]:
    return _present(
        kind="redis",
        nodes=list(external.nodes),
        username=external.username,
        password_file=files.path("redis-password", external.password_secret_ref),
        tls=external.tls,
        tls_ca_file=files.path("redis-ca.crt", external.ca_secret_ref),
        key_prefix=prefix,
    )


def _documents(deployment: RagDeployment, sources: list[dict[str, Any]]) -> dict[str, Any]:
    return {"max_bytes": int(amount(deployment.spec.documents.max_size)), "sources": sources}


def _mounted(source: Source) -> str:
    directory = source.directory
    if directory.volume is None:
        return directory.path
    return f"{SOURCES}/{source.name}" + ("" if directory.path == "." else f"/{directory.path}")


def _source(source: Source, path: str) -> dict[str, Any]:
    interval = source.directory.interval
    return _present(
        kind="directory",
        name=source.name,
        tenant=source.tenant,
        path=path,
        include=list(source.directory.include),
        interval_seconds=seconds(interval) if interval is not None else None,
    )
