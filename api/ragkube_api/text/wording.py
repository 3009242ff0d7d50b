"""A question as the gates of the semantic cache see it: words, their stems, identifiers, numbers."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache

from ragkube_api.text.inflection import lemma, singular
from ragkube_api.text.lexicon import FUNCTION_WORDS, MEASURED, NUMBER_WORDS, PHRASES

_TOKEN = re.compile(r"`[^`]+`|[^\s\"“”„«»()\[\]{}<>,;!?`…|]+")
_PHRASE = re.compile(rf"\b(?:{'|'.join(map(re.escape, PHRASES))})\b", re.IGNORECASE)
_EDGES = "'‘’*_.:~"  # noqa: RUF001  typographic quotes are meant
_INNER_CAPITAL = re.compile(r"[a-z0-9][A-Z]|[A-Z]{2}")
_PLAIN = re.compile(r"[^\W\d_]+(?:['\-–/][^\W\d_]+)*\Z")  # noqa: RUF001  an en dash is meant
_GROUPED = re.compile(r"(?<=\d)[,_](?=\d{3}(?!\d))")
_MEASURE = re.compile(r"([$€£~<>=+-]*\d+(?:\.\d+)?)([A-Za-zµ%°]{1,7})\Z")
_FOLDED = re.compile(r"[\W_]+")
_STRAIGHT = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‐": "-", "‑": "-", "…": " ", "\u00a0": " "}  # noqa: RUF001
)


@dataclass(frozen=True, slots=True)
class Word:
    """``text`` in lower case, ``lemma`` without its inflection; ``strict`` ones have no synonyms.

    Strict are identifiers, numbers, names and acronyms: ``maxSurge``, ``v1.28``, ``--force``, ``Paris``, ``TLS``.
    """

    text: str
    lemma: str
    strict: bool = False
    literal: bool = False
    """It stood between back-ticks."""
    grammar: bool = False
    """It has no meaning of its own where it stands."""

    @property
    def content(self) -> bool:
        """Whether it carries meaning of its own."""
        return self.strict or not (self.grammar or self.text in FUNCTION_WORDS)


@dataclass(frozen=True, slots=True)
class Wording:
    """A question cut into words; ``joined`` holds neighbours written together, to find ``Config Map`` as ``ConfigMap``."""

    text: str
    words: tuple[Word, ...]
    lemmas: frozenset[str]
    joined: frozenset[str]

    def has(self, word: Word) -> bool:
        """Whether the word, or what it is made of, is here."""
        return word.lemma in self.lemmas or folded(word.text) in self.joined


@lru_cache(maxsize=4096)
def wording(question: str) -> Wording:
    """Cut a question into words."""
    text = unicodedata.normalize("NFC", question).translate(_STRAIGHT)
    words: list[Word] = []
    opens = True
    plain = _PHRASE.sub(lambda found: PHRASES[found.group().lower()], _GROUPED.sub("", text))
    for match in _TOKEN.finditer(plain):
        raw = match.group()
        token = raw.strip(_EDGES)
        if raw.startswith("`"):
            words.append(_quoted(raw.strip("`").lower()))
        elif token:
            asking = bool(words) and words[-1].text == "how"
            words += (
                [_degree(word) for word in _words(token, opens=opens)]
                if asking
                else _words(token, opens=opens)
            )
        opens = raw.endswith((".", ":")) or plain[match.end() : match.end() + 1] in ("?", "!")
    lemmas = frozenset(word.lemma for word in words)
    return Wording(text, tuple(words), lemmas, _joined(words))


def _words(token: str, *, opens: bool) -> list[Word]:
    lower = token.lower()
    if lower in NUMBER_WORDS:
        return [Word(NUMBER_WORDS[lower], NUMBER_WORDS[lower], strict=True)]
    if any(character.isdigit() for character in token):
        return _measured(lower)
    if not _PLAIN.match(token):
        bare = token.strip("-")
        return [Word(lower, singular(lower), strict=bool(_FOLDED.sub("", bare)))] if bare else []
    if _INNER_CAPITAL.search(token) and "/" not in token:
        return [Word(lower, singular(folded(lower)), strict=True)]
    parts = [part for part in re.split(r"[-/]", lower) if part]
    return [w for n, part in enumerate(parts) for w in _plain(part, token, opens=opens and n == 0)]


def _quoted(token: str) -> Word:
    """What stands between back-ticks is meant to the letter."""
    return Word(token, folded(token) or token, strict=True, literal=True)


def _degree(word: Word) -> Word:
    """``How long`` asks for a duration: ``long`` says nothing of its own there."""
    return replace(word, grammar=True) if word.text in MEASURED else word


def _measured(token: str) -> list[Word]:
    """``30s`` is ``30`` and ``s``; anything else with a digit is one name."""
    if found := _MEASURE.match(token):
        number, unit = found.groups()
        return [Word(number, number, strict=True), Word(unit, lemma(unit), strict=True)]
    return [Word(token, token, strict=True)]


def _plain(part: str, token: str, *, opens: bool) -> list[Word]:
    if part.endswith("n't"):
        stem = {"ca": "can", "wo": "will", "sha": "shall"}.get(part[:-3], part[:-3])
        return [Word(stem, lemma(stem)), Word("not", "not")]
    bare = part.partition("'")[0] or part.replace("'", "")
    name = token[:1].isupper() and not opens and bare not in FUNCTION_WORDS
    return [Word(bare, lemma(bare), strict=name)]


def _joined(words: list[Word]) -> frozenset[str]:
    found: set[str] = set()
    for start in range(len(words)):
        together = ""
        for word in words[start : start + 5]:
            together += folded(word.text)
            found.add(together)
            found.add(singular(together))
    return frozenset(found)


@lru_cache(maxsize=16384)
def folded(word: str) -> str:
    """Letters and digits only, in lower case, without a plural's s."""
    return singular(_FOLDED.sub("", word.lower()))
