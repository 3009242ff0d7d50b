"""From bytes to passages: parsing, cutting and analysing text. Pure: no vendor of a store, no I/O, no clock."""

from __future__ import annotations

REVISION = "1"
"""Part of every fingerprint: raise it when parsing, chunking or index text change, and documents re-index."""
