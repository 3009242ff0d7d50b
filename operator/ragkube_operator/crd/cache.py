"""``spec.cache``: what is cached, and the Redis Cluster that every replica shares."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ragkube_operator.crd.answers import (
    AnswerCache,
    DocumentCache,
    EmbeddingCache,
    LocalLevel,
    RetrievalCache,
    Semantic,
)
from ragkube_operator.crd.base import Endpoint, Image, Part, part
from ragkube_operator.crd.common import Placement, Resources, SecretKeyRef, Storage, sized
from ragkube_operator.crd.rules import Rule, UpdateRule, union

REDIS_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}


class ManagedRedis(Placement):
    """A Redis Cluster that the operator creates and heals."""

    flavor: Literal["Redis", "Valkey"] = "Redis"
    """Redis 8 or Valkey 8."""
    image: Image | None = None
    """Image of the server; absent: `redis:8.0` or `valkey/valkey:8.1`."""
    shards: Annotated[int, Field(ge=3, le=100)] = 3
    """Primaries; each holds a part of the keys."""
    replicas_per_shard: Annotated[int, Field(ge=0, le=5)] = 1
    """Replicas of each primary, one of which takes over when it fails."""
    resources: Resources = sized(REDIS_RESOURCES)
    """Resources of each pod; the memory limit decides how much is cached."""
    storage: Storage | None = None
    """Persistent volumes; absent: the cache starts empty after all pods of a shard are replaced."""

    @property
    def pod_count(self) -> int:
        """Primaries and replicas together."""
        return self.shards * (1 + self.replicas_per_shard)


class ExternalRedis(Part):
    """A Redis Cluster (or Valkey in cluster mode) that exists already."""

    nodes: Annotated[
        list[Endpoint],
        Field(min_length=1, max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ]
    """Some of its nodes as `host:port`; they tell the others."""
    tls: bool = False
    """Speak TLS to the nodes."""
    ca_secret_ref: SecretKeyRef | None = None
    """CA certificates (PEM) that the nodes' certificates are checked with; absent: the system's."""
    username: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """ACL user; absent: the default user."""
    password_secret_ref: SecretKeyRef | None = None
    """Password of the user."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.caSecretRef) || self.tls",
            message="caSecretRef is used only with TLS: set tls: true or remove caSecretRef",
            holds=lambda self: self.ca_secret_ref is None or self.tls,
            field="caSecretRef",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="!has(self.username) || has(self.passwordSecretRef)",
            message="a username needs passwordSecretRef",
            holds=lambda self: self.username is None or self.password_secret_ref is not None,
            field="passwordSecretRef",
            reason="FieldValueRequired",
        ),
    )


class Redis(Part):
    """The Redis Cluster that replicas share: managed by the operator, or an existing one."""

    type: Literal["Managed", "External"] = "Managed"
    """`Managed`: the operator runs it. `External`: an existing one is used."""
    managed: ManagedRedis | None = None
    """How the operator runs it; absent with type Managed: all defaults."""
    external: ExternalRedis | None = None
    """Where the existing one is."""

    rules: ClassVar[tuple[Rule, ...]] = union("type", managed=False, external=True)

    @property
    def server(self) -> ManagedRedis:
        """The managed server with every default filled in."""
        return self.managed or ManagedRedis()

    @property
    def shape(self) -> tuple[int, int, str]:
        """What cannot be changed while it runs: Redis and Valkey cannot copy each other's data either."""
        return self.server.shards, self.server.replicas_per_shard, self.server.flavor


def _effective(field: str, default: object) -> str:
    """CEL that compares a field of ``redis.managed`` before and after, where absent means the default."""
    managed = "{0}.redis.managed"
    value = f"(has({managed}) ? {managed}.{field} : {default})"
    return f"{value.format('self')} == {value.format('oldSelf')}"


_SAME_SHAPE = " && ".join(
    _effective(field, value)
    for field, value in (("shards", 3), ("replicasPerShard", 1), ("flavor", "'Redis'"))
)
_STORED = "(has({0}.redis.managed) && has({0}.redis.managed.storage))"
_RESIZABLE = (
    "!self.enabled || !oldSelf.enabled || self.redis.type != 'Managed' || oldSelf.redis.type != 'Managed'"
)


def _resizable(new: Cache, old: Cache) -> bool:
    return not (new.enabled and old.enabled and new.redis.type == old.redis.type == "Managed")


_DO = "set cache.enabled to false, wait until the Redis pods are gone, then change it and enable the cache again"


class Cache(Part):
    """Caching of answers."""

    enabled: bool = True
    """False: nothing is cached, and no managed Redis runs."""
    local: LocalLevel = part(LocalLevel)
    """The level in the memory of each API pod."""
    answers: AnswerCache = part(AnswerCache)
    """Cached answers."""
    semantic: Semantic | None = None
    """Answer paraphrases from the cache too; absent: only the same question."""
    embeddings: EmbeddingCache = part(EmbeddingCache)
    """Cached vectors of questions."""
    retrieval: RetrievalCache = part(RetrievalCache)
    """Cached results of searches."""
    documents: DocumentCache = part(DocumentCache)
    """Cached descriptions of documents."""
    redis: Redis = part(Redis)
    """The Redis Cluster that replicas share."""

    rules: ClassVar[tuple[Rule, ...]] = (
        UpdateRule(
            cel=f"{_RESIZABLE} || ({_SAME_SHAPE})",
            message=f"flavor, shards and replicasPerShard of a running Redis Cluster cannot be changed: {_DO}",
            holds=lambda new, old: _resizable(new, old) or new.redis.shape == old.redis.shape,
            field="redis",
        ),
        UpdateRule(
            cel=f"{_RESIZABLE} || {_STORED.format('self')} == {_STORED.format('oldSelf')}",
            message=f"storage of a running Redis Cluster cannot be added or removed: {_DO}",
            holds=lambda new, old: (
                _resizable(new, old)
                or (new.redis.server.storage is None) == (old.redis.server.storage is None)
            ),
            field="redis",
        ),
    )
