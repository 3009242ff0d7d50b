"""Text to the terms that BM25 counts: the same for documents and questions, for every store."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import Stemmer

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*(?:_+[^\W_]+)*")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W_A-Za-z0-9]+")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
)
"""Scripts without spaces between words: cut into pairs of characters."""
_LONGEST = 64

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a about above after again all also am an and any are as at be because been before being below between both
        but by can could did do does doing down during each either else ever few for from further get gets had has have
        having he her here hers him his how i if in into is it its itself just many may me might more most much must my
        neither no nor not of off on once only or other ought our ours out over own same shall she should so some such
        than that the their theirs them then there these they this those through to too under until up upon us very was
        we were what when where whether which while who whom whose why will with within would you your yours""",
    )
)
"""Dropped from questions, unless nothing else is left."""

_local = threading.local()


def terms(text: str) -> list[str]:
    """Stemmed terms in order; a compound (``maxSurge``, ``max_surge``) gives itself and its parts."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        found.extend(_terms_of(match.group()[:256]))
    return found


def query_terms(question: str, *, limit: int = 64) -> list[str]:
    """Distinct terms of a question that carry meaning, at most ``limit``."""
    words = [match.group()[:256] for match in _WORD.finditer(question)]
    telling = [word for word in words if word.lower() not in STOP_WORDS] or words
    return list(dict.fromkeys(term for word in telling for term in _terms_of(word)))[:limit]


@lru_cache(maxsize=100_000)
def _terms_of(word: str) -> tuple[str, ...]:
    return tuple(_split(word))


def _split(word: str) -> Iterator[str]:
    folded = _fold(word)
    if _UNSPACED.search(folded):
        yield from _pairs(folded)
        return
    whole = re.sub(r"['\u2019]s\Z", "", folded)
    whole = re.sub(r"[\W_]+", "", whole)
    if whole:
        yield stem(whole)
    if word.islower() or not word.isascii():
        parts = [part for part in folded.split("_") if part] if "_" in word else []
    else:
        parts = [part.lower() for part in _HUMPS.findall(word)]
    if len(parts) > 1:
        yield from (stem(part) for part in parts if len(part) > 2)


def _fold(word: str) -> str:
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


def _pairs(word: str) -> Iterator[str]:
    for run in re.split(f"({_UNSPACED.pattern})", word):
        if len(run) == 1 or not _UNSPACED.match(run):
            yield from [stem(run)] if run else []
        else:
            yield from (run[i : i + 2] for i in range(len(run) - 1))


def stem(word: str) -> str:
    """The Snowball stem of a word in lower case."""
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer.Stemmer("english")  # not safe to share between threads
    return str(stemmer.stemWord(word[:_LONGEST]))
