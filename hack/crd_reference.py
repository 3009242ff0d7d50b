"""docs/reference/ragdeployment.md, made from the CRD's schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_INTRODUCTION = """\
# RagDeployment reference

`ragkube.dev/v1alpha1`, short name `ragd`. Generated from the code by `make generate`; `kubectl explain ragd.spec` shows the same. [The
resource by topic](../resource.md) explains how the fields work together.

Durations are whole numbers with `s`, `m`, `h` or `d`, like `30m`. Quantities are Kubernetes quantities, like `500m` or `2Gi`. Fields
without default are absent by default; *required* ones must be given where their object is given. Unknown fields are refused.
"""


def page(crd: Schema) -> str:
    """The whole page."""
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    sections = [_INTRODUCTION]
    name_rule = root["metadata"]["properties"]["name"]["x-kubernetes-validations"][0]["message"]
    sections.append(f"## metadata\n\n`metadata.name`: {name_rule}.\n")
    for part in ("spec", "status"):
        sections += [_section(path, schema) for path, schema in _objects(part, root[part])]
    return "\n".join(sections)


def _objects(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every object of the schema, outer ones first."""
    yield path, schema
    for name, child in schema["properties"].items():
        if "properties" in child:
            yield from _objects(f"{path}.{name}", child)
        elif "properties" in child.get("items", {}):
            yield from _objects(f"{path}.{name}[]", child["items"])


def _section(path: str, schema: Schema) -> str:
    lines = [f"## {path}", "", schema.get("description", ""), ""]
    lines += ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    required = schema.get("required", [])
    lines += [_row(name, child, name in required) for name, child in schema["properties"].items()]
    rules = _rules(schema)
    return "\n".join([*lines, *(["", "Rules:", "", *rules] if rules else []), ""])


def _rules(schema: Schema) -> list[str]:
    return [
        f"- {'`' + rule['fieldPath'][1:] + '`: ' if 'fieldPath' in rule else ''}{rule['message']}"
        for rule in schema.get("x-kubernetes-validations", [])
    ]


def _row(name: str, schema: Schema, required: bool) -> str:
    default = "*required*" if required else _default(schema)
    description = schema.get("description", "").replace("|", "\\|")
    return f"| `{name}` | {_type(schema)} | {default} | {description} |"


def _default(schema: Schema) -> str:
    value = schema.get("default")
    if value is None or ("properties" in schema and "requests" not in schema["properties"]):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind = schema["type"]
    if kind == "array":
        return f"list of {_type(schema['items'])}" + _range(schema, "Items")
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    if schema.get("pattern", "").endswith("(s|m|h|d)$"):
        return "duration"
    return str(kind) + _range(schema, "imum")


def _range(schema: Schema, suffix: str) -> str:
    least, most = schema.get("min" + suffix), schema.get("max" + suffix)
    if least is None and most is None:
        return ""
    if least is None:
        return f", at most {most}"
    return f", {least:g} or more" if most is None else f", {least:g} to {most:g}"
