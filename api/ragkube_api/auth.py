"""Who asks: everyone (one machine), or the holder of a key (files that may be rotated without a restart).

The administrator's key stands in a file of its own. Every other key is one line of the keys file, hashed:
``{"name": "ci", "sha256": "…", "role": "reader", "tenant": "team-a", "tier": "gold"}``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ragkube_api.domain import Identity
from ragkube_api.errors import DependencyUnavailableError, UnauthenticatedError
from ragkube_api.keys import KeysFile, read_keys
from ragkube_api.settings import ApiKeyAuth, Settings
from ragkube_api.telemetry import Telemetry

REREAD_SECONDS: Final = 1.0
"""A key that is taken out of its file works for so long at most; a new one works at once."""
_MOST_SEEN: Final = 1000
ADMIN: Final = Identity(subject="admin-key", role="admin")


class AuthUnavailableError(DependencyUnavailableError):
    """The credential cannot be checked, so nobody is let in with it."""

    code, title = "auth-unavailable", "Authentication is unavailable"


class Authenticator(Protocol):
    """Turns the ``Authorization`` header into an identity."""

    def authenticate(self, authorization: str | None) -> Identity:
        """The identity, or ``UnauthenticatedError``; ``AuthUnavailableError`` when it cannot be told."""

    def check(self) -> None:
        """Return when the administrator can be authenticated, raise ``AuthUnavailableError`` when not."""

    def check_keys(self) -> None:
        """Return when every hashed key can be used, raise ``AuthUnavailableError`` with the reason when not."""


class OpenAuthenticator:
    """Everyone may do everything."""

    def authenticate(self, authorization: str | None) -> Identity:
        """Always the same identity; a credential is not looked at."""
        del authorization
        return Identity(subject="anonymous", role="admin")

    def check(self) -> None:
        """Nothing can be missing."""

    def check_keys(self) -> None:
        """There are none."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the files say: identities by the digest of their key, and what is wrong with each file."""

    identities: Mapping[bytes, Identity]
    admin_trouble: str | None
    keys: KeysFile


class ApiKeyAuthenticator:
    """``Authorization: Bearer KEY``, looked up by its SHA-256, so that time tells nothing about a key."""

    def __init__(
        self,
        settings: ApiKeyAuth,
        tiers: frozenset[str],
        telemetry: Telemetry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admin_file = settings.admin_key_file
        self._keys_file = settings.keys_file
        self._tiers = tiers
        self._telemetry = telemetry
        self._clock = clock
        self._stamps: tuple[object, ...] = ()
        self._look_again = 0.0
        self._known = _Known({}, None, KeysFile())
        # Headers that were right since the files changed. Python's dictionaries hash with a secret: time tells nothing.
        self._seen: dict[str | None, Identity] = {}

    def authenticate(self, authorization: str | None) -> Identity:
        """One look-up, and one digest the first time; the files are looked at once a second, and for a key that is not known."""
        if self._clock() >= self._look_again:
            self._refresh()
        seen = self._seen.get(authorization)
        if seen is not None:
            return seen
        credential = _bearer(authorization)
        identity = self._find(credential)
        if identity is None:
            self._refresh()
            identity = self._find(credential)
        if identity is None:
            raise self._refusal(credential)
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[authorization] = identity
        return identity

    def check(self) -> None:
        """Raise when the file of the administrator's key is missing, unreadable or empty."""
        self._refresh()
        if self._known.admin_trouble is not None:
            raise AuthUnavailableError(self._known.admin_trouble)

    def check_keys(self) -> None:
        """Raise when the keys file, or a line of it, cannot be used."""
        self._refresh()
        trouble = self._known.keys.sentence()
        if trouble is not None:
            raise AuthUnavailableError(trouble)

    def _find(self, credential: str) -> Identity | None:
        return self._known.identities.get(_digest(credential)) if credential else None

    def _refusal(self, credential: str) -> UnauthenticatedError | AuthUnavailableError:
        """A key that may be a right one must not be called wrong: that is for when both files were read."""
        known = self._known
        if known.admin_trouble is not None:
            return AuthUnavailableError(known.admin_trouble)
        if not credential:
            return UnauthenticatedError("Send the API key as 'Authorization: Bearer KEY'.")
        if known.keys.unreadable is not None:
            return AuthUnavailableError(known.keys.unreadable)
        return UnauthenticatedError("The API key is not known.")

    def _refresh(self) -> None:
        self._look_again = self._clock() + REREAD_SECONDS
        stamps = (_stamp(self._admin_file), _stamp(self._keys_file))
        if stamps == self._stamps:
            return
        keys = KeysFile() if self._keys_file is None else read_keys(self._keys_file, self._tiers)
        identities = dict(keys.identities)
        digest, trouble = _admin(self._admin_file)
        if digest is not None:
            identities[digest] = ADMIN
        self._known, self._stamps, self._seen = _Known(identities, trouble, keys), stamps, {}
        if self._keys_file is not None:
            self._report(keys)

    def _report(self, keys: KeysFile) -> None:
        usable, unusable = len(keys.identities), len(keys.problems)
        self._telemetry.api_keys.labels("usable").set(usable)
        self._telemetry.api_keys.labels("unusable").set(unusable)
        trouble = keys.sentence()
        if trouble is None:
            self._telemetry.log.info("api_keys_loaded", usable=usable)
        else:
            self._telemetry.log.error("api_keys_unusable", usable=usable, unusable=unusable, detail=trouble)


def authenticator(settings: Settings, telemetry: Telemetry) -> Authenticator:
    """The one the settings ask for."""
    if isinstance(settings.auth, ApiKeyAuth):
        return ApiKeyAuthenticator(settings.auth, frozenset(settings.limits.tiers), telemetry)
    return OpenAuthenticator()


def _bearer(authorization: str | None) -> str:
    scheme, _, credential = (authorization or "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def _admin(path: Path) -> tuple[bytes | None, str | None]:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None, "The API key file cannot be read."
    return (_digest(key), None) if key else (None, "The API key file is empty.")


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    """Changes whenever the file does, or who may read it: a Secret volume puts another file in its place."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
