"""``spec.documents``: limits, and where documents come from."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from ragkube_operator.crd.base import LABEL_PATTERN, Duration, ObjectName, Part, Quantity
from ragkube_operator.crd.rules import Rule

_UPWARDS = r"(^|/)\.\.(/|$)"


class ClaimVolume(Part):
    """An existing PersistentVolumeClaim, mounted read-only."""

    claim_name: ObjectName
    """Name of the claim."""


class ConfigMapVolume(Part):
    """A ConfigMap; each key is a file."""

    name: ObjectName
    """Name of the ConfigMap."""


class SourceVolume(Part):
    """Where the files of a directory source are in a cluster."""

    persistent_volume_claim: ClaimVolume | None = None
    """An existing claim."""
    config_map: ConfigMapVolume | None = None
    """A ConfigMap."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.persistentVolumeClaim) != has(self.configMap)",
            message="a volume has exactly one of persistentVolumeClaim and configMap",
            holds=lambda self: (self.persistent_volume_claim is None) != (self.config_map is None),
        ),
    )


def _stays_inside(directory: DirectorySource) -> bool:
    path = directory.path
    return directory.volume is None or (not path.startswith("/") and re.search(_UPWARDS, path) is None)


class DirectorySource(Part):
    """A directory whose files are kept in the index; a file that goes, goes from the index too."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = "."
    """In a cluster relative to the volume, or to the image's working directory without one.
    With `ragkube run` relative to this file."""
    include: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=256)]],
        Field(min_length=1, max_length=32, json_schema_extra={"default": ["**/*"]}),
    ] = Field(default_factory=lambda: ["**/*"])
    """Patterns of the files that are read, like `**/*.md`."""
    interval: Duration | None = None
    """Look for changes this often, like `5m`; absent: once at every start."""
    volume: SourceVolume | None = None
    """Where the directory comes from in a cluster; absent: it is part of the image."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=r"!has(self.volume) || (!self.path.startsWith('/') && !self.path.matches('(^|/)\\.\\.(/|$)'))",
            message="a path on a volume is relative to it and has no '..'",
            holds=_stays_inside,
            field="path",
        ),
    )


class Source(Part):
    """Documents that are kept in the index by themselves."""

    name: Annotated[str, StringConstraints(pattern=LABEL_PATTERN, min_length=1, max_length=40)]
    """Name of the source, unique in the resource."""
    tenant: Annotated[str, StringConstraints(pattern=LABEL_PATTERN, min_length=1, max_length=63)] = "default"
    """Tenant that the documents belong to."""
    directory: DirectorySource
    """A directory."""


class Documents(Part):
    """Limits of one document, and where documents come from."""

    max_size: Quantity = "20Mi"
    """Largest document that is accepted, like `20Mi`."""
    sources: Annotated[
        list[Source],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = Field(default_factory=list)
    """Documents that are kept in the index by themselves; others come by the API."""
