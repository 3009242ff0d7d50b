"""Who may have a request answered now: pages of other sites, credentials, the limit of each client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ragkube_api.context import Runtime
from ragkube_api.domain import Identity
from ragkube_api.errors import RateLimitedError
from ragkube_api.origins import OriginGuard
from ragkube_api.services.limits import Allowance
from ragkube_api.settings import NoAuth, RateTier

HeaderList = list[tuple[bytes, bytes]]
_TOO_MANY: Final = "Too many requests; the headers say how much is allowed and when to go on."


class RequestHeaders:
    """The first value of each header, by its name in lower case."""

    __slots__ = ("_values", "repeated")

    def __init__(self, pairs: HeaderList) -> None:
        self._values = dict(reversed(pairs))
        self.repeated = len(self._values) != len(pairs)

    def get(self, name: bytes) -> str | None:
        """The value as text, or None."""
        value = self._values.get(name)
        return None if value is None else value.decode("latin-1")


class Admission:
    """Checks in this order: the page, the credential, the rate."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        self._origins = OriginGuard(settings)
        self._authenticator = runtime.authenticator
        self._limiter = runtime.limiter
        self._tiers: Mapping[str, RateTier] = settings.limits.tiers
        self._default = settings.limits.default_tier
        self._open = isinstance(settings.auth, NoAuth)
        self._refused = runtime.telemetry.rate_limited

    async def admit(self, scope: Mapping[str, Any], headers: RequestHeaders, state: dict[str, Any]) -> None:
        """Note the identity and, where there is a limit, the ``allowance``; raise when there is no admission."""
        self._origins.check(headers.get(b"host"), headers.get(b"origin"))
        identity = self._authenticator.authenticate(headers.get(b"authorization"))
        state["identity"] = identity
        if not self._tiers:
            return
        name, tier = self._tier(identity)
        if tier is None:
            return
        client = self._client(identity, scope)
        allowance = self._limiter.take(client, tier)
        if allowance is None:
            allowance = await self._limiter.ask(client, tier)
        state["allowance"] = allowance
        if allowance.retry_after > 0:
            self._refused.labels(name).inc()
            raise RateLimitedError(_TOO_MANY, retry_after=allowance.retry_after)

    def _tier(self, identity: Identity) -> tuple[str, RateTier | None]:
        name = identity.tier
        if name is None or name not in self._tiers:
            name = self._default
        return name, self._tiers.get(name)

    def _client(self, identity: Identity, scope: Mapping[str, Any]) -> str:
        """Without keys everybody is the same subject: then it is the address that counts."""
        if not self._open:
            return f"{identity.tenant or ''}/{identity.subject}"
        address = scope.get("client")
        return f"address/{address[0] if address else ''}"


def allowance_headers(allowance: Allowance) -> HeaderList:
    """``RateLimit-*`` as in the IETF draft: the burst, what is left of it, seconds until it is whole again."""
    return [
        (b"ratelimit-limit", b"%d" % allowance.limit),
        (b"ratelimit-remaining", b"%d" % allowance.remaining),
        (b"ratelimit-reset", b"%d" % allowance.reset),
    ]
