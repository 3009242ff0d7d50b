"""Who may have a request answered now: pages of other sites, credentials, the limit of each client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ragkube_api.context import Runtime
from ragkube_api.domain import Identity
from ragkube_api.errors import RateLimitedError
from ragkube_api.origins import OriginGuard
from ragkube_api.settings import NoAuth, RateTier
from ragkube_api.visits import Visit

_TOO_MANY: Final = "Too many requests; the headers say how much is allowed and when to go on."


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

    async def admit(self, visit: Visit) -> None:
        """Note the identity and, where there is a limit, the ``allowance``; raise when there is no admission."""
        identity = visit.identity or self.identify(visit)
        name, tier = self._tier(identity)
        if tier is None:
            visit.admitted = True
            return
        client = self._client(visit, identity)
        allowance = self._limiter.take(client, tier)
        if allowance is None:
            allowance = await self._limiter.ask(client, tier)
        visit.allowance = allowance
        if allowance.retry_after > 0:
            self._refused.labels(name).inc()
            raise RateLimitedError(_TOO_MANY, retry_after=allowance.retry_after)
        visit.admitted = True

    def identify(self, visit: Visit) -> Identity:
        """The page and the credential only; changes nothing, so that ``admit`` may come to it again."""
        headers = visit.headers
        if self._open:
            self._origins.check(headers.get(b"host"), headers.get(b"origin"))
        visit.identity = self._authenticator.authenticate(headers.get(b"authorization"))
        return visit.identity

    def charge(self, visit: Visit, identity: Identity) -> bool:
        """Take the rate's token if there is one here; False: nothing was charged, ``admit`` finds out what to do."""
        _, tier = self._tier(identity)
        if tier is None:
            visit.admitted = True
            return True
        allowance = self._limiter.take(self._client(visit, identity), tier)
        if allowance is None or allowance.retry_after > 0:
            return False
        visit.allowance, visit.admitted = allowance, True
        return True

    def _tier(self, identity: Identity) -> tuple[str, RateTier | None]:
        name = identity.tier
        if name is None or name not in self._tiers:
            name = self._default
        return name, self._tiers.get(name)

    def _client(self, visit: Visit, identity: Identity) -> str:
        """Without keys everybody is the same subject: then it is the address that counts."""
        if self._open:
            return f"address/{visit.address}"
        return f"{identity.tenant or ''}/{identity.subject}"
