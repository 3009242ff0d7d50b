"""What an answer is cached under, and how it is written down."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

import orjson

from ragkube_api.domain import Citation, Filters, Generation, Usage

_FORMAT: Final = b"a1:"
_DIGEST_SIZE: Final = 8


class CorruptEntryError(ValueError):
    """The bytes are not what ``encode`` wrote."""


def normalise(question: str) -> str:
    """NFC, white space folded to single blanks. Case stays: 'US' is not 'us', and a model sees the difference."""
    return " ".join(unicodedata.normalize("NFC", question).split())


def exact_key(*, question: str, k: int, alpha: float, filters: Filters, model: str | None, state: str) -> str:
    """A digest of everything the answer depends on besides the documents.

    ``state`` names the answerer's, the embedder's and the text pipeline's revision. The tenant is not part of
    it: the cache keeps tenants apart.
    """
    parts = [normalise(question), k, float(alpha), _canonical(filters), model, state]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def encode(generation: Generation) -> bytes:
    """Bytes with a digest, so that a damaged entry is noticed."""
    body = orjson.dumps(generation)
    return _FORMAT + _digest(body) + body


def decode(value: bytes) -> Generation:
    """The answer as it was stored; raises ``CorruptEntryError``."""
    head = len(_FORMAT)
    body = value[head + _DIGEST_SIZE :]
    if not value.startswith(_FORMAT) or value[head : head + _DIGEST_SIZE] != _digest(body):
        raise CorruptEntryError("not an entry of this format, or damaged")
    try:
        return _generation(orjson.loads(body))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CorruptEntryError("unexpected content") from error


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_SIZE).digest()


def _generation(data: Mapping[str, Any]) -> Generation:
    citations = tuple(Citation(**citation) for citation in data["citations"])
    return Generation(**{**data, "citations": citations, "usage": Usage(**data["usage"])})


def _canonical(filters: Filters) -> list[Any]:
    """The order of keys and of alternatives does not matter; the type of a value does."""
    return sorted([key, _alternatives(value)] for key, value in filters.items())


def _alternatives(value: Any) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return sorted({f"{type(item).__name__}:{item!r}" for item in values})
