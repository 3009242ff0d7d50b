"""Objects that several parts of the spec use."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, JsonValue, StringConstraints

from ragkube_operator.crd.base import ObjectName, Part, Quantity, amount
from ragkube_operator.crd.rules import Rule, UpdateRule

Labels = Annotated[
    dict[str, Annotated[str, StringConstraints(max_length=63)]],
    Field(max_length=32),
]
Amounts = Annotated[dict[str, Quantity], Field(max_length=8)]


class SecretKeyRef(Part):
    """One key of a Secret in the namespace of the RagDeployment."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
    """Key inside the Secret."""


class LocalObject(Part):
    """An object in the namespace of the RagDeployment."""

    name: ObjectName
    """Name of the object."""


def sized(default: dict[str, dict[str, str]]) -> Any:
    """A field with the resources of a part's pods."""
    return Field(
        default_factory=lambda: Resources.model_validate(default),
        json_schema_extra=cast("dict[str, JsonValue]", {"default": default}),
    )


def _requests_fit(resources: Resources) -> bool:
    limits = resources.limits
    return all(amount(value) <= amount(limits[k]) for k, value in resources.requests.items() if k in limits)


class Resources(Part):
    """What a container asks for and may use. Setting it replaces the whole default."""

    requests: Amounts = Field(default_factory=dict)
    """What the scheduler reserves, like `{cpu: 100m, memory: 256Mi}`."""
    limits: Amounts = Field(default_factory=dict)
    """What the container may use at most."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
            "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
            message="a request must not be above the limit of the same resource",
            holds=_requests_fit,
            field="requests",
        ),
    )


class Toleration(Part):
    """Lets pods run on nodes with a matching taint."""

    key: Annotated[str, StringConstraints(max_length=316)] | None = None
    """Taint key; absent with operator Exists matches every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are compared."""
    value: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Taint value, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect; absent matches every effect."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long the pod stays after a NoExecute taint; absent: for ever."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.key) || self.operator == 'Exists'",
            message="a toleration without key needs operator Exists",
            holds=lambda self: self.key is not None or self.operator == "Exists",
            field="operator",
        ),
        Rule(
            cel="!has(self.value) || self.operator == 'Equal'",
            message="operator Exists takes no value: remove value or use operator Equal",
            holds=lambda self: self.value is None or self.operator == "Equal",
            field="value",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="tolerationSeconds needs effect NoExecute",
            holds=lambda self: self.toleration_seconds is None or self.effect == "NoExecute",
            field="tolerationSeconds",
            reason="FieldValueForbidden",
        ),
    )


class Placement(Part):
    """Where the pods of a part run."""

    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(default_factory=list)
    """Taints of nodes that the pods tolerate."""


class Storage(Part):
    """A persistent volume for each pod."""

    size: Quantity = "10Gi"
    """Size of each pod's volume. It cannot be changed afterwards."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the volumes; absent: the cluster's default."""

    rules: ClassVar[tuple[Rule, ...]] = (
        UpdateRule(
            cel="quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) == 0",
            message="the size of existing volumes cannot be changed: back up and create a new RagDeployment",
            holds=lambda new, old: amount(new.size) == amount(old.size),
            field="size",
        ),
        UpdateRule(
            cel="has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            message="the storage class of existing volumes cannot be changed",
            holds=lambda new, old: new.storage_class_name == old.storage_class_name,
            field="storageClassName",
        ),
    )
