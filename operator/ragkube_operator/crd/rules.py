"""Validation rules: each one is CEL text for the API server and the same rule in Python.

The API server evaluates ``cel``; ``ragkube run`` and ``ragkube validate`` evaluate ``holds``. A test on a real
API server proves for every rule that both accept and refuse the same manifests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Reason = Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"]

KINDS: dict[Reason, str] = {
    "FieldValueInvalid": "Invalid value",
    "FieldValueRequired": "Required value",
    "FieldValueForbidden": "Forbidden",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold of one object of the spec; ``field`` is the wire name that a violation is reported at."""

    cel: str
    message: str
    holds: Callable[..., bool]
    field: str | None = None
    reason: Reason = "FieldValueInvalid"

    def as_schema(self) -> dict[str, str]:
        """The entry of ``x-kubernetes-validations``."""
        entry = {"rule": self.cel, "message": self.message}
        if self.field is not None:
            entry["fieldPath"] = "." + self.field
        if self.reason != "FieldValueInvalid":
            entry["reason"] = self.reason
        return entry


@dataclass(frozen=True, slots=True)
class UpdateRule(Rule):
    """What must hold between an object and what it was before: ``holds`` is called with (new, old)."""


def union(discriminator: str, **members: bool) -> tuple[Rule, ...]:
    """Rules of a discriminated union: a member may stand only beside its own type, and must where True.

    ``union("type", managed=False, external=True)`` reads: ``type: Managed`` may have ``managed``,
    ``type: External`` must have ``external``, and neither may have the other's member.
    """
    found: list[Rule] = []
    for member, required in members.items():
        value = TYPE_NAMES[member]
        if required:
            found.append(_needs(discriminator, member, value))
        found.append(_excludes(discriminator, member, value))
    return tuple(found)


TYPE_NAMES = {
    "managed": "Managed",
    "external": "External",
    "anthropic": "Anthropic",
    "wordllama": "Wordllama",
    "openAI": "OpenAI",
}
"""The value of a discriminator for each member's wire name."""


def _attribute(wire: str) -> str:
    return "openai" if wire == "openAI" else wire


def _needs(discriminator: str, member: str, value: str) -> Rule:
    name = _attribute(member)
    return Rule(
        cel=f"self.{discriminator} != '{value}' || has(self.{member})",
        message=f"{discriminator} {value} needs the fields of {member}",
        holds=lambda self: getattr(self, discriminator) != value or getattr(self, name) is not None,
        field=member,
        reason="FieldValueRequired",
    )


def _excludes(discriminator: str, member: str, value: str) -> Rule:
    name = _attribute(member)
    return Rule(
        cel=f"self.{discriminator} == '{value}' || !has(self.{member})",
        message=f"{member} may be set only with {discriminator} {value}: remove it or change {discriminator}",
        holds=lambda self: getattr(self, discriminator) == value or getattr(self, name) is None,
        field=member,
        reason="FieldValueForbidden",
    )
