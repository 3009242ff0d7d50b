"""The CustomResourceDefinition, made from the models."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from pydantic import BaseModel

from ragkube_operator.crd.base import Part, default
from ragkube_operator.crd.spec import (
    GROUP,
    KIND,
    NAME_RULE,
    PLURAL,
    VERSION,
    RagDeployment,
    RagDeploymentSpec,
)
from ragkube_operator.crd.status import RagDeploymentStatus

_DROPPED = {"title", "additionalProperties", "const", "discriminator"}

COLUMNS = [
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Whether everything serves"),
    ("API", "string", ".status.api.summary", "API pods, ready and wanted"),
    ("Store", "string", ".status.vectorStore.summary", "Where the documents are"),
    ("URL", "string", ".status.url", "Address of the API inside the cluster"),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation"),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready or not"),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', "What to do"),
]
WIDE = {"Reason", "Message"}
SCALE = {
    "specReplicasPath": ".spec.api.replicas",
    "statusReplicasPath": ".status.api.replicas",
    "labelSelectorPath": ".status.selector",
}


def manifest() -> dict[str, Any]:
    """The CustomResourceDefinition of RagDeployment."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{PLURAL}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "ragkube", "app.kubernetes.io/part-of": "ragkube"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "ragdeployment",
                "shortNames": ["ragd"],
                "categories": ["all", "ragkube"],
            },
            "versions": [_version()],
        },
    }


def _version() -> dict[str, Any]:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": SCALE},
        "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
        "schema": {"openAPIV3Schema": _root()},
    }


def _column(name: str, kind: str, path: str, description: str) -> dict[str, Any]:
    priority = {"priority": 1} if name in WIDE else {}
    return {"name": name, "type": kind, "jsonPath": path, "description": description, **priority}


def _root() -> dict[str, Any]:
    name = {"type": "string", "maxLength": 253, "x-kubernetes-validations": [NAME_RULE.as_schema()]}
    spec = structural(RagDeploymentSpec) | {"default": default(RagDeploymentSpec)}
    return {
        "type": "object",
        "description": inspect.getdoc(RagDeployment),
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec,
            # kstatus takes a resource without a status for finished: so nobody believes that before an operator looked
            "status": structural(RagDeploymentStatus) | {"default": {"observedGeneration": -1}},
        },
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of a model: inlined, without keywords that Kubernetes refuses."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    definitions = raw.pop("$defs", {})
    rules = {part.__name__: part for part in _parts(Part)}
    return _convert(raw | {"x-model": model.__name__}, definitions, rules)


def _parts(base: type[Part]) -> list[type[Part]]:
    return [found for child in base.__subclasses__() for found in (child, *_parts(child))]


def _convert(
    node: dict[str, Any], definitions: dict[str, Any], models: dict[str, type[Part]]
) -> dict[str, Any]:
    node = _resolved(node, definitions)
    model = models.get(node.pop("x-model", ""))
    result = {key: copy.deepcopy(value) for key, value in node.items() if key not in _DROPPED}
    if "properties" in node:
        result["properties"] = {
            name: _convert(child, definitions, models) for name, child in node["properties"].items()
        }
    if "items" in node:
        result["items"] = _convert(node["items"], definitions, models)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions, models)
    if "enum" in node:
        result["type"] = "integer" if isinstance(node["enum"][0], int) else "string"
    if result.get("default") is None:
        result.pop("default", None)
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if model is not None and model.rules:
        result["x-kubernetes-validations"] = [rule.as_schema() for rule in model.rules]
    return result


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Replace a reference by what it names, and `X or null` by X (absent is how Kubernetes says null)."""
    branches = [branch for branch in node.get("anyOf", ()) if branch.get("type") != "null"]
    if "anyOf" in node and len(branches) < len(node["anyOf"]):
        (branch,) = branches if len(branches) == 1 else ({"anyOf": branches},)
        node = {**branch, **{key: value for key, value in node.items() if key != "anyOf"}}
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        outer = {key: value for key, value in node.items() if key != "$ref"}
        node = {**definitions[name], **outer, "x-model": name}
    return node
