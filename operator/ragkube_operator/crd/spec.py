"""The whole resource: ``RagDeployment``, its spec and its metadata."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ragkube_operator.crd.access import Auth, Limits
from ragkube_operator.crd.autoscaling import Autoscaling
from ragkube_operator.crd.base import Duration, Image, Part, amount, part
from ragkube_operator.crd.cache import Cache
from ragkube_operator.crd.common import LocalObject, Placement, Resources, sized
from ragkube_operator.crd.documents import Documents
from ragkube_operator.crd.models import LLM, Embedding, Retrieval
from ragkube_operator.crd.monitoring import Monitoring
from ragkube_operator.crd.rules import Rule, UpdateRule
from ragkube_operator.crd.store import VectorStore

GROUP = "ragkube.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RagDeployment"
PLURAL = "ragdeployments"

API_RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"


NAME_RULE = Rule(
    cel=f"self.matches('{NAME}')",
    message="a name has at most 40 characters a-z, 0-9 and -, and begins with a letter: "
    "names of Services and pods are made from it",
    holds=lambda name: re.search(NAME, name) is not None,
)


class Api(Placement):
    """The HTTP API that answers questions and takes documents."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """Pods. While `autoscaling` is on, only what a new deployment starts with."""
    image: Image | None = None
    """Image of API and workers; absent: the one of the operator that first saw this resource."""
    resources: Resources = sized(API_RESOURCES)
    """Resources of each pod."""
    max_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Requests that one pod works on at the same time; more are refused with 503 and Retry-After."""
    request_timeout: Duration = "60s"
    """Time that a request may take; a pod that is replaced ends only after it."""
    slow_request_threshold: Duration = "1s"
    """Requests that take longer are marked `"slow": true` in the log."""
    log_level: Literal["Debug", "Info", "Warning", "Error"] = "Info"
    """Least severe events that are logged."""


class Workers(Placement):
    """The worker that keeps the index up with the sources; it runs only when there are any."""

    resources: Resources = sized(API_RESOURCES)
    """Resources of the pod."""


class Network(Part):
    """NetworkPolicies."""

    policy: Literal["Enabled", "Disabled"] = "Enabled"
    """`Enabled`: only our own pods reach Redis and Weaviate; the API is open to the cluster."""


def _local_level_fits(spec: RagDeploymentSpec) -> bool:
    limit = spec.api.resources.limits.get("memory")
    return limit is None or 2 * amount(spec.cache.local.max_memory) <= amount(limit)


def _verifier_has_a_server(spec: RagDeploymentSpec) -> bool:
    semantic = spec.cache.semantic
    model = semantic is not None and semantic.verifier is not None and semantic.verifier.model is not None
    return not model or spec.llm.type == "Anthropic"


class RagDeploymentSpec(Part):
    """What the platform should be. Every field has a default: an empty spec gives a working platform."""

    paused: bool = False
    """True: the operator leaves everything as it is."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """What happens to the volumes of managed databases when this resource is deleted."""
    image_pull_secrets: Annotated[
        list[LocalObject],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = Field(default_factory=list)
    """Secrets with the credentials of image registries, for every pod."""
    api: Api = part(Api)
    """The HTTP API."""
    workers: Workers = part(Workers)
    """The worker that follows the sources."""
    auth: Auth = part(Auth)
    """Who may use the API."""
    limits: Limits = part(Limits)
    """Rate limits."""
    cache: Cache = part(Cache)
    """Caching of answers."""
    vector_store: VectorStore = part(VectorStore)
    """Where documents, passages and vectors are kept."""
    embedding: Embedding = part(Embedding)
    """What turns text into vectors."""
    llm: LLM = part(LLM)
    """What writes the answers."""
    retrieval: Retrieval = part(Retrieval)
    """How documents are cut and how passages are found."""
    documents: Documents = part(Documents)
    """Limits of one document, and where documents come from."""
    monitoring: Monitoring = part(Monitoring)
    """Who watches the platform."""
    network: Network = part(Network)
    """NetworkPolicies."""
    autoscaling: Autoscaling = part(Autoscaling)
    """API pods follow the load."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.api.resources.limits) || !('memory' in self.api.resources.limits) || "
            "quantity(string(self.cache.local.maxMemory)).add(quantity(string(self.cache.local.maxMemory)))"
            ".compareTo(quantity(string(self.api.resources.limits['memory']))) <= 0",
            message="cache.local.maxMemory may be at most half of api.resources.limits.memory: "
            "the process needs the rest",
            holds=_local_level_fits,
            field="cache.local.maxMemory",
        ),
        Rule(
            cel="!has(self.autoscaling.targets.inFlight) || self.autoscaling.targets.inFlight <= self.api.maxConcurrency",
            message="a pod never works on more than api.maxConcurrency requests: lower targets.inFlight or raise it",
            holds=lambda self: (
                self.autoscaling.targets.in_flight is None
                or self.autoscaling.targets.in_flight <= self.api.max_concurrency
            ),
            field="autoscaling.targets.inFlight",
        ),
        Rule(
            cel="!has(self.cache.semantic) || !has(self.cache.semantic.verifier) || "
            "!has(self.cache.semantic.verifier.model) || self.llm.type == 'Anthropic'",
            message="a verifier's model is one of spec.llm.anthropic: set llm.type to Anthropic, or name a url",
            holds=_verifier_has_a_server,
            field="cache.semantic.verifier.model",
        ),
        UpdateRule(
            cel="oldSelf.vectorStore.weaviate.type != 'Managed' || self.vectorStore.weaviate.type == 'Managed' || "
            "oldSelf.deletionPolicy == 'Retain'",
            message="leaving the managed Weaviate deletes its volumes: set deletionPolicy to Retain first, "
            "then change its type",
            holds=lambda new, old: (
                old.vector_store.weaviate.type != "Managed"
                or new.vector_store.weaviate.type == "Managed"
                or old.deletion_policy == "Retain"
            ),
            field="vectorStore.weaviate.type",
        ),
    )


class Metadata(BaseModel):
    """The parts of an object's metadata that matter here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    deletion_timestamp: str | None = Field(default=None, alias="deletionTimestamp")


class RagDeployment(Part):
    """Question answering over your own documents, as one resource."""

    api_version: Literal["ragkube.dev/v1alpha1"] = "ragkube.dev/v1alpha1"
    kind: Literal["RagDeployment"] = "RagDeployment"
    metadata: Metadata
    spec: RagDeploymentSpec = part(RagDeploymentSpec)
    status: dict[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the resource."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the resource and of everything it has."""
        return self.metadata.namespace
