"""Words without their inflection. Lighter than a stemmer: 'universe' and 'university' stay apart."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_VOWEL = re.compile(r"[aeiouy]")

IRREGULAR: Final = {
    "is": "be", "are": "be", "was": "be", "were": "be", "been": "be", "am": "be", "being": "be", "has": "have", "had": "have",
    "having": "have", "does": "do", "did": "do", "done": "do", "doing": "do", "men": "man", "women": "woman", "people": "person",
    "children": "child", "got": "get", "gotten": "get", "went": "go", "gone": "go", "goes": "go", "made": "mak", "became": "becom",
    "wrote": "writ", "written": "writ", "ran": "run", "running": "run", "chosen": "choos", "chose": "choos", "kept": "keep",
    "set": "set", "sets": "set", "setting": "setting", "settings": "setting", "left": "left", "took": "tak", "taken": "tak",
    "gave": "giv", "given": "giv", "came": "com", "sent": "send", "built": "build", "broke": "break", "broken": "break",
    "during": "during", "according": "according", "need": "need", "needs": "need", "speed": "speed", "feed": "feed",
    "led": "lead", "lost": "los", "held": "hold", "told": "tell", "said": "say", "paid": "pay", "met": "meet", "won": "win",
    "data": "data", "indices": "index", "indexes": "index", "vertices": "vertex", "analyses": "analysis", "lies": "li",
    "string": "string", "nothing": "nothing", "something": "something", "anything": "anything", "everything": "everything",
    "bigger": "big", "biggest": "big", "larger": "large", "largest": "large", "dying": "di", "died": "di", "dies": "di",
}  # fmt: skip
"""Base forms that rules do not find, written as ``lemma`` writes them."""


def singular(word: str) -> str:
    """Without a plural's s."""
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "os")):
        return word[:-2] if word.endswith(("sses", "shes", "ches", "xes")) else word[:-1]
    return word


@lru_cache(maxsize=16384)
def lemma(word: str) -> str:
    """Without plural, ``-ed``, ``-ing`` and a last ``e``."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) <= 3:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    word = singular(word)
    for ending in ("ing", "ed"):
        stem = word.removesuffix("" if word.endswith("eed") else ending)
        if stem != word and len(stem) >= 3 and _VOWEL.search(stem):
            if len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
                stem = stem[:-1]
            return stem[:-1] + "y" if stem.endswith("i") else stem
    return word.removesuffix("e")
