"""Embeddings in the process: the mean of static token vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from ragkube_api.adapters.wordllama_model import NAME, StaticModel, load_model
from ragkube_api.domain import Vectors

_BATCH = 64
_INLINE_CHARACTERS = 4000
"""A question this short is embedded in less time than a thread takes to start."""


class WordllamaEmbedder:
    """Embeds texts with the model that the wordllama wheel carries."""

    def __init__(self, model: StaticModel, dimensions: int) -> None:
        self._model = model
        self._dimensions = dimensions

    @classmethod
    def load(cls, dimensions: int = 256) -> WordllamaEmbedder:
        """With the installed model.

        Raises:
            StartupError: it is missing.
        """
        return cls(load_model(), dimensions)

    @property
    def name(self) -> str:
        """Model and dimensions."""
        return f"wordllama/{NAME}/{self._dimensions}"

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """One row a text; short input is done at once, the rest in a thread."""
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return self.embed(texts)
        return await asyncio.to_thread(self.embed, texts)

    async def embed_query(self, text: str) -> Vectors:
        """Shape (dimensions,)."""
        row: Vectors = (await self.embed_documents([text]))[0]
        return row

    async def ping(self) -> None:
        """It can always serve."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The same, in the calling thread; a text without tokens becomes zeros."""
        out = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            for row, tokens in enumerate(self._model.tokens(texts[start : start + _BATCH]), start):
                out[row] = self._model.mean(tokens, self._dimensions)
        return out
