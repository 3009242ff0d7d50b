"""Keeps web pages away from an API that asks for no key: a browser on the same machine would carry out their requests."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from ragkube_api.errors import ForbiddenError
from ragkube_api.settings import NoAuth, Settings

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class OriginGuard:
    """Active without authentication only: with a key, a page that does not know it gets nowhere."""

    def __init__(self, settings: Settings) -> None:
        self._open = isinstance(settings.auth, NoAuth)
        self._local = settings.server.host in _LOOPBACK

    def check(self, host: str | None, origin: str | None) -> None:
        """Raise ``ForbiddenError`` for another site's page, also when its name was pointed at this machine."""
        if not self._open:
            return
        host = host or ""
        if self._local and _name(host) not in _LOOPBACK:
            raise ForbiddenError(
                "This API serves its own machine only; use http://127.0.0.1 or http://localhost."
            )
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise ForbiddenError("Pages of other sites may not use an API that asks for no key.")


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
