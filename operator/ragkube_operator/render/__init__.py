"""From a RagDeployment to manifests: pure functions, one file per part; no clock, no randomness, no I/O."""

from __future__ import annotations

from ragkube_operator.render.context import Context
from ragkube_operator.render.rendering import render
from ragkube_operator.render.secrets import (
    GeneratedSecret,
    SecretRef,
    generated_secrets,
    referenced_secrets,
)
from ragkube_operator.render.settings import local_settings, settings

__all__ = [
    "Context",
    "GeneratedSecret",
    "SecretRef",
    "generated_secrets",
    "local_settings",
    "referenced_secrets",
    "render",
    "settings",
]
