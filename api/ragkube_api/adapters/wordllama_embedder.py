"""Static embeddings in the process: token vectors of wordllama's wheel, averaged. No network, no GPU, no torch.

The package itself is not imported: it pulls in a second's worth of modules and configures logging.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ragkube_api.domain import Vectors
from ragkube_api.errors import StartupError

_MODEL = "l2_supercat_256"
_TOKENIZER = "l2_supercat_tokenizer_config.json"
_BATCH = 64
_INLINE_CHARACTERS = 4000
"""A question this short is embedded in less time than a thread takes to start."""


class WordllamaEmbedder:
    """Embeds texts with the model that the wordllama wheel carries."""

    def __init__(self, table: Vectors, tokenizer: Any, dimensions: int) -> None:
        self._table = table
        self._tokenizer = tokenizer
        self._dimensions = dimensions

    @classmethod
    def load(cls, dimensions: int = 256) -> WordllamaEmbedder:
        """Read weights and tokenizer from the installed package.

        Raises:
            StartupError: the package or its files are missing.
        """
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        spec = find_spec("wordllama")
        if spec is None or not spec.submodule_search_locations:
            raise StartupError("the package wordllama is not installed; install ragkube with the extra 'api'")
        folder = Path(spec.submodule_search_locations[0])
        weights, tokens = folder / "weights" / f"{_MODEL}.safetensors", folder / "tokenizers" / _TOKENIZER
        if not (weights.is_file() and tokens.is_file()):
            raise StartupError(f"the wordllama package in {folder} has no model files; install it again")
        (table,) = load_file(weights).values()
        tokenizer = Tokenizer.from_file(str(tokens))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(np.ascontiguousarray(table[:, :dimensions], dtype=np.float32), tokenizer, dimensions)

    @property
    def name(self) -> str:
        """Model and dimensions."""
        return f"wordllama/{_MODEL}/{self._dimensions}"

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
        vectors = await self.embed_documents([text])
        row: Vectors = vectors[0]
        return row

    async def ping(self) -> None:
        """It can always serve."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The same, in the calling thread; a text without tokens becomes zeros."""
        out = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            for row, encoding in enumerate(encodings, start):
                if ids := encoding.ids:
                    self._table.take(ids, axis=0, mode="clip").sum(axis=0, out=out[row])
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        np.divide(out, norms, out=out, where=norms > 0)
        return out
