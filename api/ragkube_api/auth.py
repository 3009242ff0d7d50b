"""Who asks: everyone (one machine), or the holder of the admin key (a file that may be rotated)."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Protocol

from ragkube_api.domain import Identity
from ragkube_api.errors import DependencyUnavailableError, UnauthenticatedError
from ragkube_api.settings import ApiKeyAuth, AuthSettings


class AuthUnavailableError(DependencyUnavailableError):
    """Nobody can be authenticated, so nobody is let in."""

    code, title = "auth-unavailable", "Authentication is unavailable"


class Authenticator(Protocol):
    """Turns the ``Authorization`` header into an identity."""

    def authenticate(self, authorization: str | None) -> Identity:
        """The identity, or ``UnauthenticatedError``; ``AuthUnavailableError`` when it cannot be told."""

    def check(self) -> None:
        """Return when requests can be authenticated, raise ``AuthUnavailableError`` when not."""


class OpenAuthenticator:
    """Everyone may do everything."""

    def authenticate(self, authorization: str | None) -> Identity:
        """Always the same identity; a credential is not looked at."""
        del authorization
        return Identity(subject="anonymous", role="admin")

    def check(self) -> None:
        """Nothing can be missing."""


class ApiKeyAuthenticator:
    """``Authorization: Bearer KEY`` against the key in a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._digest = b""

    def authenticate(self, authorization: str | None) -> Identity:
        """Compare digests, so that time tells nothing about the key."""
        digest = self._current()
        scheme, _, credential = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            raise UnauthenticatedError("Send the API key as 'Authorization: Bearer KEY'.")
        if not hmac.compare_digest(_digest(credential.strip()), digest):
            raise UnauthenticatedError("The API key is not known.")
        return Identity(subject="admin-key", role="admin")

    def check(self) -> None:
        """Raise when the key file is missing, unreadable or empty."""
        self._current()

    def _current(self) -> bytes:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - one system call a request
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                key = self._path.read_text(encoding="utf-8").strip()
                self._digest, self._stamp = (_digest(key) if key else b""), stamp
        except (OSError, UnicodeDecodeError) as error:
            raise AuthUnavailableError("The API key file cannot be read.") from error
        if not self._digest:
            raise AuthUnavailableError("The API key file is empty.")
        return self._digest


def authenticator(settings: AuthSettings) -> Authenticator:
    """The one the settings ask for."""
    if isinstance(settings, ApiKeyAuth):
        return ApiKeyAuthenticator(settings.admin_key_file)
    return OpenAuthenticator()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
