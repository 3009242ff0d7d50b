"""The status subresource: what the operator reports. No defaults: what it has not written is not there."""

from __future__ import annotations

from typing import Annotated, Literal

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
    message: Annotated[str, Field(max_length=32768)]
    """A sentence for people: what is wrong and what to do."""


class PodCount(Part):
    """Pods of a part."""

    replicas: int | None = None
    """Pods that should run."""
    ready: int | None = None
    """Pods that are ready."""
    summary: str | None = None
    """Both in short, like `2/2`, or `External`."""


class ScalingStatus(Part):
    """What scales the API."""

    engine: Literal["KEDA", "Metrics", "CPU"] | None = None
    """The engine in use."""
    api: Literal["external.metrics.k8s.io", "custom.metrics.k8s.io"] | None = None
    """The API that serves the metrics to engine Metrics."""


class RagDeploymentStatus(Part):
    """What the operator reports."""

    observed_generation: int | None = None
    """Generation of the resource that this status describes."""
    conditions: Annotated[
        list[Condition],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = Field(default_factory=list)
    """Ready, Reconciling, Stalled and one for each part."""
    url: str | None = None
    """Address of the API inside the cluster."""
    version: str | None = None
    """Version of the operator that wrote this."""
    api_image: str | None = None
    """Image of API and workers, kept when the operator is upgraded."""
    api: PodCount | None = None
    """Pods of the API."""
    selector: str | None = None
    """Labels of the API's pods, for the scale subresource."""
    autoscaling: ScalingStatus | None = None
    """What scales the API; absent while autoscaling is off."""
    workers: PodCount | None = None
    """Pods of the worker."""
    cache: PodCount | None = None
    """Pods of the managed Redis Cluster."""
    vector_store: PodCount | None = None
    """Pods of the managed Weaviate."""
