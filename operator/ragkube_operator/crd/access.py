"""``spec.auth`` and ``spec.limits``: who may use the API, and how much."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from ragkube_operator.crd.base import Part
from ragkube_operator.crd.common import SecretKeyRef
from ragkube_operator.crd.rules import Rule

TierName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", max_length=40)]


class Auth(Part):
    """Who may use the API."""

    mode: Literal["ApiKey", "None"] = "ApiKey"
    """`ApiKey`: requests carry a key. `None`: everyone who reaches the Service may do everything."""
    admin_key_secret_ref: SecretKeyRef | None = None
    """The administrator's key; absent: the operator generates Secret `<name>-admin-key`, key `key`."""
    api_keys_secret_ref: SecretKeyRef | None = None
    """Further keys, hashed: one line for each, as `ragkube keys new` prints it. A change needs no restart."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.mode == 'ApiKey' || !has(self.adminKeySecretRef)",
            message="adminKeySecretRef is used only with mode ApiKey: remove it or change mode",
            holds=lambda self: self.mode == "ApiKey" or self.admin_key_secret_ref is None,
            field="adminKeySecretRef",
            reason="FieldValueForbidden",
        ),
        Rule(
            cel="self.mode == 'ApiKey' || !has(self.apiKeysSecretRef)",
            message="apiKeysSecretRef is used only with mode ApiKey: remove it or change mode",
            holds=lambda self: self.mode == "ApiKey" or self.api_keys_secret_ref is None,
            field="apiKeysSecretRef",
            reason="FieldValueForbidden",
        ),
    )


class Tier(Part):
    """How much one client may ask, over all pods."""

    name: TierName
    """Name of the tier; API keys name it."""
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)]
    """Requests in a minute."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests at once after a pause; absent: a tenth of requestsPerMinute, at least 1."""

    @property
    def at_once(self) -> int:
        """The burst with its default filled in."""
        return self.burst or max(1, self.requests_per_minute // 10)


class Limits(Part):
    """Rate limits; more requests get 429 with Retry-After. Without tiers nobody is limited."""

    tiers: Annotated[
        list[Tier],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = Field(default_factory=list)
    """Tiers that API keys may name."""
    default_tier: TierName | None = None
    """Tier of clients whose key names none; absent: the tier called `default`, and no limit where there is none."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.defaultTier) || (has(self.tiers) && self.tiers.exists(t, t.name == self.defaultTier))",
            message="defaultTier is none of tiers: add it there or name another",
            holds=lambda self: (
                self.default_tier is None or self.default_tier in {tier.name for tier in self.tiers}
            ),
            field="defaultTier",
        ),
    )
