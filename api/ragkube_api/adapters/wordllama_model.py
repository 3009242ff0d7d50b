"""The static token vectors that wordllama's wheel carries. No network, no GPU, no torch.

The package itself is not imported: it pulls in a second's worth of modules and configures logging.
"""

from __future__ import annotations

import json
import os
import struct
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
Table: TypeAlias = NDArray[np.float16]
_AT_ONCE = 256
# The tokenizer remembers whole texts, 2 kB each, and 10,000 of them if it may: few come again.
_REMEMBERED = 256
_LEAST_LENGTH = np.float32(1e-4)
# From half to single precision: where the fraction begins, what a shifted sign leaves behind, and the exponents' bias.
_MORE_FRACTION_BITS = 13
_SIGN_EXPONENT_FRACTION = np.int32(~0x70000000)
_BIAS = np.float32(2.0**112)
_ROWS_AT_ONCE = 2048
_MOST_HEADER_BYTES = 1 << 20
_STORED = {"F16": np.dtype("<f2")}


class StaticModel:
    """A vector for each token; it never changes and may be shared.

    ``table`` has half precision, shape (tokens, dimensions), and may be mapped from its file: only rows that are used
    are read, and processes share them. ``weights`` are the lengths of its rows.
    """

    def __init__(self, table: Table, weights: NDArray[np.float32], tokenizer: Any) -> None:
        self.weights = weights
        self._table = table.view(np.int16)
        self._tokenizer = tokenizer

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return int(self._table.shape[1])

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text; lets go of the interpreter while it works."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint16) for encoding in encodings]

    def mean(self, tokens: Tokens, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
        """The unit vector of the sum; zeros without tokens."""
        total = self.total(tokens, dimensions)
        length = float(np.linalg.norm(total))
        return total / np.float32(length) if length > 0 else total

    def total(self, tokens: Tokens, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
        """The sum of the tokens' vectors."""
        total: NDArray[np.float32] = (
            np.ones(len(tokens), dtype=np.float32) @ self._rows(tokens)[:, :dimensions]
        )
        return total

    def _rows(self, tokens: NDArray[np.integer[Any]]) -> Vectors:
        """In single precision, exactly; numpy's own way takes five times as long where the processor has no AVX-512."""
        bits = self._table.take(tokens, axis=0).astype(np.int32)
        bits <<= _MORE_FRACTION_BITS
        bits &= _SIGN_EXPONENT_FRACTION
        rows: Vectors = bits.view(np.float32)
        rows *= _BIAS
        return rows

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
        similarity = self._similarity(distinct, asked)
        filled = lengths > 0
        starts = np.concatenate([[0], np.cumsum(lengths[filled])[:-1]])
        best = np.maximum.reduceat(similarity.take(places[together], axis=0), starts, axis=0)
        weights = self.weights[asked]
        scores[filled] = np.clip(best @ weights / weights.sum(), 0, 1)
        return scores

    def _similarity(self, left: NDArray[np.intp], right: Tokens) -> NDArray[np.float32]:
        """Cosine of each token with each; a part at a time, as every thread keeps the memory it once needed."""
        columns = np.ascontiguousarray(self._rows(right).T) / self._lengths(right)
        found = np.empty((len(left), len(right)), dtype=np.float32)
        for start in range(0, len(left), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            np.matmul(self._rows(left[part]), columns, out=found[part])
        found /= self._lengths(left)[:, None]
        return found

    def _lengths(self, tokens: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        lengths: NDArray[np.float32] = np.maximum(self.weights[tokens], _LEAST_LENGTH)
        return lengths


@lru_cache(maxsize=1)
def load_model() -> StaticModel:
    """Read the tokenizer and map the vectors of the installed package, once.

    Raises:
        StartupError: the package or its files are missing or of another kind.
    """
    from tokenizers import Tokenizer

    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError("the package wordllama is not installed; install ragkube with the extra 'api'")
    folder = Path(spec.submodule_search_locations[0])
    weights, tokens = folder / "weights" / f"{NAME}.safetensors", folder / "tokenizers" / _TOKENIZER
    if not (weights.is_file() and tokens.is_file()):
        raise StartupError(f"the wordllama package in {folder} has no model files; install it again")
    tokenizer = Tokenizer.from_file(str(tokens))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.model._resize_cache(_REMEMBERED)  # noqa: SLF001  there is no public one
    table = mapped(weights)
    return StaticModel(table, _lengths(weights, table), tokenizer)


def mapped(file: Path) -> Table:
    """The only tensor of a safetensors file: length of the header, header, data.

    Raises:
        StartupError: the file is damaged or has something else.
    """
    try:
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            (tensor,) = json.loads(opened.read(min(size, _MOST_HEADER_BYTES))).values()
        begin, shape = 8 + size + tensor["data_offsets"][0], tuple(tensor["shape"])
        # a plain array: each use of a memmap makes a new one
        table = np.asarray(np.memmap(file, _STORED[tensor["dtype"]], "r", begin, shape))
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise StartupError(f"the model file {file} is damaged or of another version") from error
    return table


def _lengths(file: Path, table: Table) -> NDArray[np.float32]:
    """Of each row. Read, not mapped: what is touched in a map counts as memory of this process."""
    rows, dimensions = table.shape
    lengths = np.empty(rows, dtype=np.float32)
    with file.open("rb") as opened:
        opened.seek(-table.nbytes, os.SEEK_END)
        for start in range(0, rows, _ROWS_AT_ONCE):
            part = lengths[start : start + _ROWS_AT_ONCE]
            values = np.fromfile(opened, dtype=table.dtype, count=len(part) * dimensions)
            part[:] = np.linalg.norm(values.reshape(-1, dimensions).astype(np.float32), axis=1)
    return lengths
