"""The status subresource: what the operator reports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ragkube_operator.crd.base import Part


class Condition(Part):
    """One aspect of the resource, as in `metav1.Condition`."""

    type: str = Field(max_length=316)
    """Name of the condition, like `Ready`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int | None = None
    """Generation of the resource that this was seen for."""
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    """When `status` changed last."""
    reason: str = Field(max_length=1024)
    """One word for programs; docs/status-conditions.md lists them."""
    message: str = Field(default="", max_length=32768)
    """A sentence for people: what is wrong and what to do."""


class PodCount(Part):
    """Pods of a part."""

    replicas: int = 0
    """Pods that should run."""
    ready: int = 0
    """Pods that are ready."""
    summary: str = ""
    """Both in short, like `2/2`, or `External`."""


class RagDeploymentStatus(Part):
    """What the operator reports."""

    observed_generation: int = 0
    """Generation of the resource that this status describes."""
    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    """Ready, Reconciling, Stalled and one for each part."""
    url: str = ""
    """Address of the API inside the cluster."""
    version: str = ""
    """Version of the operator that wrote this."""
    api_image: str = ""
    """Image of API and workers, kept when the operator is upgraded."""
    api: PodCount | None = None
    """Pods of the API."""
    workers: PodCount | None = None
    """Pods of the worker."""
    cache: PodCount | None = None
    """Pods of the managed Redis Cluster."""
    vector_store: PodCount | None = None
    """Pods of the managed Weaviate."""
