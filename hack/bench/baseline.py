"""BM25 alone, as one would set it up in five minutes: FTS5, Porter stemmer, passages of about 1,000 characters."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

from bench.datasets import Text
from ragkube_api.domain import Chunk, Passage
from ragkube_api.text import chunking


class Bm25:
    """Retrieves by words only."""

    def __init__(self, texts: Sequence[Text], *, max_characters: int = 1000) -> None:
        self._connection = sqlite3.connect(":memory:")
        self._connection.execute("CREATE VIRTUAL TABLE words USING fts5(text, tokenize = 'porter unicode61')")
        self._passages: list[tuple[str, Chunk]] = [
            (text.id, chunk)
            for text in texts
            for chunk in chunking.split(
                text.body, content_type=text.content_type, max_characters=max_characters
            )
        ]
        rows = ((number, chunk.text) for number, (_, chunk) in enumerate(self._passages))
        self._connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)

    async def search(self, question: str, k: int) -> Sequence[Passage]:
        """The ``k`` best passages."""
        words = dict.fromkeys(re.findall(r"\w+", question.lower()))
        rows = self._connection.execute(
            "SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), k),
        )
        return [Passage(*self._named(number), score=score) for number, score in rows]

    def _named(self, number: int) -> tuple[str, str, str, Chunk]:
        document, chunk = self._passages[number]
        return document, "", "", chunk
