"""Categories of questions, each with its TTL: the first whose words stand in the question decides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from ragkube_api.settings import TtlClass

DEFAULT: Final = "default"


class TtlOf(NamedTuple):
    """The class of a question and the seconds that its answers are fresh."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TtlClasses:
    """The classes in their order, and the TTL where none fits."""

    rules: tuple[tuple[re.Pattern[str], TtlOf], ...]
    default: TtlOf

    def of(self, question: str) -> TtlOf:
        """The class of a normalised question."""
        folded = question.casefold()
        for pattern, ttl in self.rules:
            if pattern.search(folded):
                return ttl
        return self.default


def compiled(categories: Iterable[TtlClass], default_seconds: float) -> TtlClasses:
    """Ready to classify; a word fits as a whole word or phrase, case does not matter."""
    rules = tuple(
        (_pattern(category.words), TtlOf(category.name, category.ttl_seconds)) for category in categories
    )
    return TtlClasses(rules, TtlOf(DEFAULT, default_seconds))


def _pattern(words: Iterable[str]) -> re.Pattern[str]:
    phrases = (r"\s+".join(map(re.escape, word.casefold().split())) for word in words)
    # look-arounds and not \b: a word may begin or end with a character like "+" or "/"
    return re.compile(rf"(?<!\w)(?:{'|'.join(filter(None, phrases)) or '(?!)'})(?!\w)")
