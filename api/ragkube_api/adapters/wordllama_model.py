"""The static token vectors that wordllama's wheel carries. No network, no GPU, no torch.

The package itself is not imported: it pulls in a second's worth of modules and configures logging.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragkube_api.domain import Vectors
from ragkube_api.errors import StartupError

NAME = "l2_supercat_256"
DIMENSIONS = 256
_TOKENIZER = "l2_supercat_tokenizer_config.json"
Tokens: TypeAlias = NDArray[np.uint16]
_AT_ONCE = 256
# The tokenizer remembers whole texts, 2 kB each, and 10,000 of them if it may: few come again.
_REMEMBERED = 256


class StaticModel:
    """A unit vector and a weight (its length before) for each token; it never changes and may be shared."""

    def __init__(self, table: Vectors, tokenizer: Any) -> None:
        self.weights: NDArray[np.float32] = np.linalg.norm(table, axis=1).astype(np.float32)
        self.units: Vectors = table / np.maximum(self.weights, 1e-9)[:, None]
        self._tokenizer = tokenizer

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text; lets go of the interpreter while it works."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint16) for encoding in encodings]

    def mean(self, tokens: Tokens, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
        """The unit vector of the weighted sum; zeros without tokens."""
        total = self.total(tokens, dimensions)
        length = float(np.linalg.norm(total))
        return total / np.float32(length) if length > 0 else total

    def total(self, tokens: Tokens, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
        """The weighted sum, which is the sum of the tokens' own vectors."""
        total: NDArray[np.float32] = self.weights[tokens] @ self.units[tokens, :dimensions]
        return total

    def interaction(self, question: Tokens, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """How well each text answers to the question's tokens, 0..1.

        Every token of the question takes the most similar token of the text; the weighted mean of these
        similarities tells passages apart that share a topic, where the distance of means does not.
        """
        asked = np.unique(question)
        lengths = np.array([len(text) for text in texts])
        scores = np.zeros(len(texts), dtype=np.float32)
        if not len(asked) or not lengths.any():
            return scores
        together = np.concatenate([text for text in texts if len(text)])
        present = np.zeros(len(self.weights), dtype=np.bool_)
        present[together] = True
        distinct = np.flatnonzero(present)
        places = np.zeros(len(self.weights), dtype=np.intp)
        places[distinct] = np.arange(len(distinct))
        similarity = self._similarity(asked, distinct)
        filled = lengths > 0
        starts = np.concatenate([[0], np.cumsum(lengths[filled])[:-1]])
        best = np.maximum.reduceat(similarity[:, places[together]], starts, axis=1)
        weights = self.weights[asked]
        scores[filled] = np.clip(weights @ best / weights.sum(), 0, 1)
        return scores

    def _similarity(self, left: Tokens, right: NDArray[np.intp]) -> NDArray[np.float32]:
        """Cosine of each token with each; a part at a time, as every thread keeps the memory it once needed."""
        asked = self.units[left]
        found = np.empty((len(left), len(right)), dtype=np.float32)
        for start in range(0, len(right), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            np.matmul(asked, self.units[right[part]].T, out=found[:, part])
        return found


@lru_cache(maxsize=1)
def load_model() -> StaticModel:
    """Read weights and tokenizer from the installed package, once.

    Raises:
        StartupError: the package or its files are missing.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError("the package wordllama is not installed; install ragkube with the extra 'api'")
    folder = Path(spec.submodule_search_locations[0])
    weights, tokens = folder / "weights" / f"{NAME}.safetensors", folder / "tokenizers" / _TOKENIZER
    if not (weights.is_file() and tokens.is_file()):
        raise StartupError(f"the wordllama package in {folder} has no model files; install it again")
    (table,) = load_file(weights).values()
    tokenizer = Tokenizer.from_file(str(tokens))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.model._resize_cache(_REMEMBERED)  # noqa: SLF001  there is no public one
    return StaticModel(np.asarray(table, dtype=np.float32), tokenizer)
