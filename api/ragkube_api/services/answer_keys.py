"""What an answer is cached under: pure functions of the question and its parameters, never of the documents."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import orjson

from ragkube_api.domain import Filters, Key

_DIGEST_BYTES: Final = 16


def normalise(question: str) -> str:
    """NFC, white space folded to single blanks. Case stays: 'US' is not 'us', and a model sees the difference."""
    if not question.isascii():  # nothing else has other forms
        question = unicodedata.normalize("NFC", question)
    return " ".join(question.split())


def answer_key(
    *, question: str, k: int, alpha: float, filters: Filters, model: str | None, state: str
) -> Key:
    """Everything the answer depends on besides the documents; ``question`` is normalised here.

    ``state`` names the answerer's, the embedder's and the text pipeline's revision. The tenant is not part of
    it: the cache keeps tenants apart.
    """
    parts = [normalise(question), k, float(alpha), _canonical(filters), model, state]
    return Key("answer", _digest(parts))


def retrieval_key(*, question: str, k: int, alpha: float, filters: Filters, state: str) -> Key:
    """Everything the retrieved passages depend on besides the documents; ``state`` as for the retrieval."""
    return Key("retrieval", _digest([normalise(question), k, float(alpha), _canonical(filters), state]))


def document_key(document_id: str) -> Key:
    """The description of one document."""
    return Key("document", _digest([document_id]))


def embedding_digest(text: str, embedder: str) -> str:
    """The vector of one question."""
    return _digest([text, embedder])


def partition(*, k: int, alpha: float, filters: Filters, model: str | None, state: str) -> str:
    """Everything of ``answer_key`` but the question: 32 hexadecimal digits."""
    return _digest([k, float(alpha), _canonical(filters), model, state])


def request_of(*, question: str, k: int, alpha: float, filters: Filters, model: str | None) -> bytes:
    """The request as canonical JSON: the same bytes for the same key, and enough to ask it again."""
    ordered = {key: _list(value) for key, value in sorted(filters.items())}
    fields = {
        "question": normalise(question),
        "k": k,
        "alpha": float(alpha),
        "filters": ordered,
        "model": model,
    }
    return orjson.dumps(fields)


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.blake2b(orjson.dumps(parts), digest_size=_DIGEST_BYTES).hexdigest()


def _canonical(filters: Filters) -> list[Any]:
    """The order of keys and of alternatives does not matter; the type of a value does."""
    return sorted([key, _alternatives(value)] for key, value in filters.items()) if filters else []


def _alternatives(value: Any) -> list[str]:
    return sorted({_typed(item) for item in (value if isinstance(value, list | tuple) else [value])})


def _list(value: Any) -> Any:
    return sorted(value, key=_typed) if isinstance(value, list | tuple) else value


def _typed(item: Any) -> str:
    return f"{type(item).__name__}:{item!r}"
