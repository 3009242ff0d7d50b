"""The file of hashed API keys: one JSON object a line, so that a wrong line costs no other key.

Empty lines and lines that begin with ``#`` are skipped. Two lines may have the same name: that is how a key is
rotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ragkube_api.domain import Identity

_MAX_BYTES = 4 * 1024 * 1024


class _Line(BaseModel):
    # A misspelt tenant must not become a key for every tenant: unknown fields are refused.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    role: Literal["reader", "writer", "admin"]
    tenant: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    tier: Annotated[str, Field(min_length=1, max_length=40)] | None = None


@dataclass(frozen=True, slots=True)
class KeysFile:
    """Identities by the SHA-256 of their key; ``problems`` names lines that are not used, or not as they say."""

    identities: Mapping[bytes, Identity] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    unreadable: str | None = None
    """The file as a whole cannot be used."""

    def sentence(self) -> str | None:
        """What is wrong, without anything that stands in the file; None when all is well."""
        if self.unreadable is not None:
            return self.unreadable
        if not self.problems:
            return None
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return f"The file of API keys: {self.problems[0]}{more}."


def read_keys(path: Path, tiers: frozenset[str]) -> KeysFile:
    """Read the file; never raises. A key whose tier is not one of ``tiers`` gets the default one."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return KeysFile(unreadable="The file of API keys cannot be read.")
    if len(raw) > _MAX_BYTES:
        return KeysFile(unreadable=f"The file of API keys is larger than {_MAX_BYTES // 2**20} MiB.")
    identities: dict[bytes, Identity] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            problem = _add(line, identities, tiers)
            if problem is not None:
                problems.append(f"line {number}: {problem}")
    return KeysFile(identities, tuple(problems))


def _add(line: str, identities: dict[bytes, Identity], tiers: frozenset[str]) -> str | None:
    try:
        entry = _Line.model_validate_json(line)
    except ValidationError as error:
        return _reason(error)
    digest = bytes.fromhex(entry.sha256)
    if digest in identities:
        return "the same sha256 stands in an earlier line"
    unknown = entry.tier is not None and bool(tiers) and entry.tier not in tiers
    tier = None if unknown else entry.tier
    identities[digest] = Identity(subject=entry.name, role=entry.role, tenant=entry.tenant, tier=tier)
    return "the tier is none of spec.limits.tiers, so the default one is used" if unknown else None


def _reason(error: ValidationError) -> str:
    """The field and what it should be; never its value, which may be a key."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return "no JSON object"
    if first["type"] == "extra_forbidden":
        return "a field that is not known; known are name, sha256, role, tenant and tier"
    return f"{first['loc'][0] if first['loc'] else 'the line'}: {first['msg']}"
