"""What an answer rests on: the retrieved passages in their order. An answer is a pure function of it.

Scores are not part of it: every write of any document shifts them a little (BM25 counts words over all documents,
and the fused scores are scaled by the best and the worst), while the passages and their order mostly stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ragkube_api.domain import Passage

DIGEST_BYTES: Final = 16
_DECAY: Final = 0.15


def digest(passages: Sequence[Passage]) -> bytes:
    """16 bytes over document, version and chunk of each passage, in order. A version never comes back."""
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for passage in passages:
        # no byte of UTF-8 is 0xff, so no two lists are written alike
        hashed.update(f"{passage.document}\n{passage.version}\n{passage.chunk.ordinal}".encode() + b"\xff")
    return hashed.digest()


def by_rank(passages: Sequence[Passage]) -> list[Passage]:
    """The same passages with scores that only tell the rank: what an answerer may see of them."""
    return [
        replace(passage, score=round(1 / (1 + _DECAY * rank), 4)) for rank, passage in enumerate(passages)
    ]


def documents(passages: Sequence[Passage]) -> tuple[tuple[str, str], ...]:
    """Each document with its version once, in the order of its best passage."""
    return tuple(dict.fromkeys((passage.document, passage.version) for passage in passages))
