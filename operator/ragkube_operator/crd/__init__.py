"""The RagDeployment resource: its models, its schema, and the rules a manifest is checked with."""

from __future__ import annotations

from ragkube_operator.crd.parsing import SpecError, parse
from ragkube_operator.crd.schema import manifest
from ragkube_operator.crd.spec import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    RagDeployment,
    RagDeploymentSpec,
)
from ragkube_operator.crd.words import Problem

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "Problem",
    "RagDeployment",
    "RagDeploymentSpec",
    "SpecError",
    "manifest",
    "parse",
]
