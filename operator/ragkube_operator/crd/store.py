"""``spec.vectorStore``: where documents, passages and vectors are kept."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from ragkube_operator.crd.base import Host, Image, Part, Port, amount, part
from ragkube_operator.crd.common import Placement, Resources, SecretKeyRef, Storage, sized
from ragkube_operator.crd.rules import Rule, UpdateRule, union

WEAVIATE_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}


class ManagedWeaviate(Placement):
    """A Weaviate cluster that the operator creates and heals."""

    image: Image | None = None
    """Image of the server; absent: `semitechnologies/weaviate:1.39.0`."""
    replicas: Annotated[int, Field(ge=1, le=30)] = 1
    """Nodes: 1, or 3 and more (then every document is stored three times; documents that were there before it
    grew from 1 stay on one node). It can only grow."""
    resources: Resources = sized(WEAVIATE_RESOURCES)
    """Resources of each pod."""
    storage: Storage = part(Storage)
    """The volume of each pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.replicas != 2",
            message="two nodes have no majority when one is away: use 1, or 3 and more",
            holds=lambda self: self.replicas != 2,
            field="replicas",
        ),
    )


class ExternalWeaviate(Part):
    """A Weaviate that exists already."""

    http_host: Host
    """Host of its REST API."""
    http_port: Port = 8080
    """Port of its REST API."""
    grpc_host: Host | None = None
    """Host of its gRPC API; absent: httpHost."""
    grpc_port: Port = 50051
    """Port of its gRPC API."""
    secure: bool = False
    """Speak TLS to both."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key; absent: anonymous access."""
    collection_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]{0,63}$")] | None = None
    """What the names of our collections begin with; absent: made from namespace and name, so that deployments
    can share a Weaviate."""
    replication_factor: Annotated[int, Field(ge=1, le=9)] = 1
    """On how many of its nodes each document is stored."""


def _appears(here: str, there: str) -> str:
    """CEL: where only ``here`` has the managed server, its volumes are the default ones."""
    storage = f"{here}.managed.storage"
    return (
        f"!has({here}.managed) || has({there}.managed) || (!has({storage}.storageClassName) && "
        f"quantity(string({storage}.size)).compareTo(quantity('{Storage().size}')) == 0)"
    )


class Weaviate(Part):
    """The vector database: managed by the operator, or an existing one."""

    type: Literal["Managed", "External"] = "Managed"
    """`Managed`: the operator runs it. `External`: an existing one is used."""
    managed: ManagedWeaviate | None = None
    """How the operator runs it; absent with type Managed: all defaults."""
    external: ExternalWeaviate | None = None
    """Where the existing one is."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *union("type", managed=False, external=True),
        UpdateRule(
            cel="self.type != 'Managed' || oldSelf.type != 'Managed' || "
            "(has(self.managed) ? self.managed.replicas : 1) >= "
            "(has(oldSelf.managed) ? oldSelf.managed.replicas : 1)",
            message="Weaviate's replicas cannot be reduced: the removed nodes hold documents",
            holds=lambda new, old: not _both_managed(new, old) or new.server.replicas >= old.server.replicas,
            field="managed",
        ),
        UpdateRule(
            cel="self.type != 'Managed' || oldSelf.type != 'Managed' || "
            f"({_appears('self', 'oldSelf')}) && ({_appears('oldSelf', 'self')})",
            message="the volumes of a running Weaviate cannot be changed: "
            "back up and create a new RagDeployment",
            holds=lambda new, old: not _both_managed(new, old) or _same_volumes(new, old),
            field="managed",
        ),
    )

    @property
    def server(self) -> ManagedWeaviate:
        """The managed server with every default filled in."""
        return self.managed or ManagedWeaviate()


def _both_managed(new: Weaviate, old: Weaviate) -> bool:
    return new.type == old.type == "Managed"


def _same_volumes(new: Weaviate, old: Weaviate) -> bool:
    """Where ``managed`` appears or goes; Storage's own rules compare what stands in both."""
    if (new.managed is None) == (old.managed is None):
        return True
    now, before = new.server.storage, old.server.storage
    return amount(now.size) == amount(before.size) and now.storage_class_name == before.storage_class_name


class VectorStore(Part):
    """Where documents, passages and vectors are kept."""

    weaviate: Weaviate = part(Weaviate)
    """A Weaviate."""
