"""Values of the cache whose damage is noticed, and which open under their own key only."""

from __future__ import annotations

import hashlib
from typing import Final

_FORMAT: Final = b"rks1"
_CHECK_BYTES: Final = 8
_HEAD: Final = len(_FORMAT) + _CHECK_BYTES


def seal(payload: bytes, digest: str) -> bytes:
    """The value to store under the key with this digest."""
    return _FORMAT + _check(payload, digest) + payload


def unseal(value: bytes, digest: str) -> bytes | None:
    """The payload; None when the value is damaged, of another format, or of another key."""
    payload = value[_HEAD:]
    if not value.startswith(_FORMAT) or value[len(_FORMAT) : _HEAD] != _check(payload, digest):
        return None
    return payload


def _check(payload: bytes, digest: str) -> bytes:
    return hashlib.blake2b(payload, digest_size=_CHECK_BYTES, key=digest.encode()).digest()
