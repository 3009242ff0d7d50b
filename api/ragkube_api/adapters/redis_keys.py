"""Names of keys in Redis: nothing of one tenant is built from another's input."""

from __future__ import annotations

import re
from typing import Final

_TENANT: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST: Final = re.compile(r"[0-9a-f]{32,64}")


def slot_tag(prefix: str, tenant: str, digest: str | None = None) -> str:
    """What a key begins with: those with the same one lie in one slot. Raises ``ValueError`` for what is neither."""
    if not _TENANT.fullmatch(tenant) or (digest is not None and not _DIGEST.fullmatch(digest)):
        msg = f"not a tenant and a digest: {tenant!r} {digest!r}"
        raise ValueError(msg)
    return f"{{{prefix}:{tenant}}}" if digest is None else f"{{{prefix}:{tenant}:{digest}}}"
