"""Lexical guards: differences between two questions after which they never share an answer.

Each guard looks at one kind of difference and says whether it is there. They fail closed: what they do not understand
(another script, a name they cannot find on the other side) is a difference.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Final

from ragkube_api.text.lexicon import (
    FILLERS,
    NECESSITY,
    NEGATIONS,
    PAST,
    POLES,
    POSSIBILITY,
    QUANTIFIERS,
    UNITS,
)
from ragkube_api.text.question_types import compatible, question_types
from ragkube_api.text.wording import Word, Wording, folded

Guard = Callable[[Wording, Wording], bool]

_NEGATED = re.compile(r"(?:non|un|in|im|dis|mis|anti|de|ir|il)(?=[a-z]{3})")
_NOT_ENGLISH: Final = frozenset(
    [
        "der",
        "die",
        "das",
        "und",
        "nicht",
        "wie",
        "ist",
        "kann",
        "wird",
        "für",
        "mit",
        "auf",
        "ein",
        "eine",
        "welche",
        "warum",
        "wann",
        "le",
        "la",
        "les",
        "des",
        "est",
        "une",
        "pour",
        "dans",
        "quel",
        "quelle",
        "comment",
        "pourquoi",
        "el",
        "los",
        "las",
        "que",
        "como",
        "cuando",
        "por",
        "para",
        "una",
        "het",
        "een",
        "hoe",
        "wat",
        "waarom",
        "il",
        "che",
        "gli",
        "della",
        "perché",
        "di",
        "não",
        "uma",
        "quando",
        "jak",
        "czy",
        "nie",
    ]
)
_PERSONS: Final = {
    "i": 1, "me": 1, "my": 1, "mine": 1, "we": 1, "us": 1, "our": 1, "you": 1, "your": 1, "yours": 1, "one": 1,
    "he": 3, "his": 3, "him": 3, "she": 4, "her": 4, "hers": 4,
}  # fmt: skip
_DIRECTIONS: Final = frozenset(
    ["from", "to", "into", "onto", "than", "over", "instead", "versus", "by", "against", "before", "after"]
)
_JOINTS: Final = frozenset(["but", "when", "if", "while", "whether", "because", "where"])


def foreign_letters(left: Wording, right: Wording) -> bool:
    """Letters outside ASCII that are not the same on both sides: look-alikes, full-width forms, other scripts."""
    return _exotic(left.text) != _exotic(right.text)


def _exotic(text: str) -> Counter[str]:
    words = (word for word in text.split() if not word.isascii())
    return Counter(
        "".join(c for c in word if not c.isascii()) for word in words if any(_matters(c) for c in word)
    )


def _matters(character: str) -> bool:
    """Letters, digits, marks, symbols and invisible characters, but not punctuation."""
    return not character.isascii() and unicodedata.category(character)[0] != "P"


def another_language(left: Wording, right: Wording) -> bool:
    """The lists are English: what looks like another language is left to the exact cache."""
    return any(len({w.text for w in side.words} & _NOT_ENGLISH) >= 2 for side in (left, right))


def numbers(left: Wording, right: Wording) -> bool:
    """Numbers, versions and whatever has a digit in it."""
    return _digits(left) != _digits(right)


def _digits(side: Wording) -> frozenset[str]:
    found = (word.text for word in side.words if any(c.isdigit() for c in word.text))
    return frozenset(folded(text) if text[0].isalpha() else text.strip("=~+") for text in found)


def units(left: Wording, right: Wording) -> bool:
    """Seconds, minutes, MB, MiB, per cent …"""
    return _units(left) != _units(right)


def _units(side: Wording) -> frozenset[str]:
    return frozenset(UNITS[word.text] for word in side.words if word.text in UNITS)


def negation(left: Wording, right: Wording) -> bool:
    """One is negated and the other is not."""
    return _negations(left) % 2 != _negations(right) % 2 or _prefixed(left, right) or _prefixed(right, left)


def _negations(side: Wording) -> int:
    return sum(word.text in NEGATIONS for word in side.words)


def _prefixed(side: Wording, other: Wording) -> bool:
    """``unsafe`` here and ``safe`` there; ``non-root`` here and ``root`` there."""
    texts, lemmas = [word.text for word in side.words], [word.lemma for word in side.words]
    if texts.count("non") != sum(word.text == "non" for word in other.words):
        return True
    return any(
        (bare := _NEGATED.sub("", lemma, count=1)) != lemma
        and lemma not in other.lemmas
        and bare in other.lemmas
        for lemma in lemmas
    )


def polarity(left: Wording, right: Wording) -> bool:
    """Opposites and words of which only one can be meant: enable/disable, before/after, read/write, CPU/memory."""
    ours, theirs = _poles(left), _poles(right)
    return any(ours[line] != theirs[line] for line in ours.keys() & theirs.keys())


def _poles(side: Wording) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for form in _forms(side):
        for line, pole in POLES.get(form, ()):
            found.setdefault(line, set()).add(pole)
    return found


def _forms(side: Wording) -> frozenset[str]:
    return frozenset(form for word in side.words for form in (word.text, word.lemma))


def quantifiers(left: Wording, right: Wording) -> bool:
    """All, only, both, first, again …"""
    return _named(left, QUANTIFIERS) != _named(right, QUANTIFIERS)


def _named(side: Wording, names: dict[str, str]) -> frozenset[str]:
    return frozenset(names[word.text] for word in side.words if word.text in names)


def modality(left: Wording, right: Wording) -> bool:
    """Must it, or may it?"""
    ours, theirs = _forms(left), _forms(right)
    return any(bool(ours & words) != bool(theirs & words) for words in (NECESSITY, POSSIBILITY))


def tense(left: Wording, right: Wording) -> bool:
    """What will be is not what was."""
    return (_future(left) and not _future(right) and _past(right)) or (
        _future(right) and not _future(left) and _past(left)
    )


def _future(side: Wording) -> bool:
    return any(word.text in ("will", "future", "upcoming") for word in side.words)


def _past(side: Wording) -> bool:
    return any(word.text in PAST for word in side.words)


def persons(left: Wording, right: Wording) -> bool:
    """My mother is not his mother. ``I``, ``you`` and ``one`` are whoever asks."""
    return _addressed(left) != _addressed(right)


def _addressed(side: Wording) -> frozenset[int]:
    return frozenset(_PERSONS[word.text] for word in side.words if _PERSONS.get(word.text, 1) != 1)


def question_type(left: Wording, right: Wording) -> bool:
    """Why is not when."""
    return not compatible(question_types(left), question_types(right))


def names(left: Wording, right: Wording) -> bool:
    """Identifiers, acronyms, proper names: each must be on the other side, letter for letter but for case and joints."""
    return _missing(left, right) or _missing(right, left)


def _missing(side: Wording, other: Wording) -> bool:
    return any(
        word.strict
        and (word.literal or word.text not in FILLERS)
        and not any(c.isdigit() for c in word.text)
        and not other.has(word)
        for word in side.words
    )


def order(left: Wording, right: Wording) -> bool:
    """The same words the other way round: from A to B, A better than B, Indian women and Pakistani men, replaced by."""
    if _passive(left, right) or _passive(right, left):
        return True
    ours, theirs = _sequence(left, right), _sequence(right, left)
    if ours == theirs:
        return False
    here, there = _governed(left, right), _governed(right, left)
    if any(here[word].isdisjoint(there[word]) for word in here.keys() & there.keys()):
        return True
    turned = any(w.text == "by" for w in left.words) != any(w.text == "by" for w in right.words)
    return (not turned and _swapped(ours, theirs)) or _exchanged(left, right) or _regrouped(left, right)


def _passive(side: Wording, other: Wording) -> bool:
    """``A was replaced by B`` here, ``A replaced B`` there."""
    words, theirs = side.words, [word.lemma for word in other.words]
    if any(word.text == "by" for word in other.words):
        return False
    for number, word in enumerate(words):
        agent = next((w.lemma for w in words[number + 1 :] if heavy(w)), "")
        verb = words[number - 1].lemma if number else ""
        if word.text == "by" and agent in theirs and verb in theirs:
            return theirs.index(agent) > len(theirs) - 1 - theirs[::-1].index(verb)
    return False


def _swapped(ours: list[str], theirs: list[str]) -> bool:
    """Two words have changed places, and something stands between them."""
    if len(ours) != len(theirs):
        return False
    places = [n for n, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    return len(places) == 2 and places[1] - places[0] > 1


def _exchanged(left: Wording, right: Wording) -> bool:
    """Two words have exchanged the words right behind them."""
    ahead, astern = _neighbours(left, right), _neighbours(right, left)
    moved = [word for word in ahead.keys() & astern.keys() if ahead[word] != astern[word]]
    return any(ahead[a] == astern[b] and ahead[b] == astern[a] for a in moved for b in moved)


def _regrouped(left: Wording, right: Wording) -> bool:
    """As many clauses on both sides, but other words together."""
    ours, theirs = _clauses(left, right), _clauses(right, left)
    return len(ours) == len(theirs) > 1 and Counter(ours) != Counter(theirs)


def _clauses(side: Wording, other: Wording) -> list[frozenset[str]]:
    found: list[set[str]] = [set()]
    for word in side.words:
        if word.text in _JOINTS:
            found.append(set())
        elif heavy(word) and word.lemma in other.lemmas:
            found[-1].add(word.lemma)
    return [frozenset(clause) for clause in found if clause]


def _sequence(side: Wording, other: Wording) -> list[str]:
    return [word.lemma for word in side.words if heavy(word) and word.lemma in other.lemmas]


def _governed(side: Wording, other: Wording) -> dict[str, set[str]]:
    """The next shared word that carries meaning after each preposition; for before and after, all of the clause."""
    found: dict[str, set[str]] = {}
    for number, word in enumerate(side.words):
        if word.text in _DIRECTIONS:
            clause = itertools.takewhile(lambda w: w.text not in _JOINTS, side.words[number + 1 :])
            shared = [w.lemma for w in clause if heavy(w) and w.lemma in other.lemmas]
            found.setdefault(word.text, set()).update(
                shared if word.text in ("before", "after") else shared[:1]
            )
    return {word: governed for word, governed in found.items() if governed}


def _neighbours(side: Wording, other: Wording) -> dict[str, str]:
    """The shared word right behind each shared word."""
    pairs = zip(side.words, side.words[1:], strict=False)
    return {
        a.lemma: b.lemma
        for a, b in pairs
        if heavy(a) and heavy(b) and b.text not in _DIRECTIONS and {a.lemma, b.lemma} <= other.lemmas
    }


def heavy(word: Word) -> bool:
    """Whether a difference in this word is one in meaning."""
    return word.content and word.text not in FILLERS and word.lemma not in FILLERS


GUARDS: Final[tuple[tuple[str, Guard], ...]] = (
    ("characters", foreign_letters),
    ("language", another_language),
    ("numbers", numbers),
    ("units", units),
    ("negation", negation),
    ("polarity", polarity),
    ("quantifiers", quantifiers),
    ("modality", modality),
    ("tense", tense),
    ("persons", persons),
    ("question-type", question_type),
    ("names", names),
    ("order", order),
)
"""By name, cheapest first."""


def first_conflict(left: Wording, right: Wording) -> str | None:
    """The name of the first guard that refuses, or None."""
    return next((name for name, differs in GUARDS if differs(left, right)), None)
