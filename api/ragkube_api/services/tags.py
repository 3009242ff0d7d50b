"""Tags of cached answers: those a request gives, and automatic ones, so that answers can be cleared by them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_TAGS: Final = 8
AUTOMATIC: Final = ("class:", "model:", "answerer:")
"""Prefixes that a request may not use."""


def tags_of(given: Iterable[str], *, ttl_class: str, model: str | None, answerer: str) -> tuple[str, ...]:
    """What an answer is tagged with; the automatic ones first."""
    automatic = [f"class:{ttl_class}", f"answerer:{answerer}", *([f"model:{model}"] if model else [])]
    return (*automatic, *dict.fromkeys(given))
