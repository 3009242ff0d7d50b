"""What a question asks for: a reason, a time, a number …"""

from __future__ import annotations

import re
from typing import Final

from ragkube_api.text.wording import Wording

_AUXILIARY: Final = (
    r"(?:is|are|was|were|am|do|does|did|can|could|will|would|shall|should|may|might|must|has|have|had)\b"
)
_GOODNESS: Final = r"(?:(?:best|good|right|correct|proper|easiest|simplest|fastest|most \w+) )?"
_PATTERNS: Final = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("reason", r"\b(?:why|how come|for (?:what|which) (?:reason|purpose)|(?:wh(?:at|ich)(?: is| are| was| were|'s| has been) )?the (?:reason|rationale|cause|purpose|point|motivation)\b|wh(?:at|ich) (?:makes|made|causes|caused|motivates))"),
        ("duration", r"\bhow (?:long|much time|quick(?:ly)?|soon|fast|late|old)\b|\bhow many (?:seconds|minutes|hours|days|weeks|months|years)\b"),
        ("frequency", r"\bhow (?:often|frequently)\b|\bat wh(?:at|ich) (?:interval|rate|frequency)\b"),
        ("quantity", r"\bhow (?:many|much|large|big|far|high|low|deep|precise|likely|probable|tall|heavy|small|wide)\b"),
        ("place", rf"\bwhere {_AUXILIARY}|\bin wh(?:at|ich) (?:place|country|city|file|directory)\b"),
        ("time", rf"\bwhen {_AUXILIARY}|\b(?:at|since|until|by|on) wh(?:at|ich) (?:time|date|year|day|month|point|moment)\b"),
        ("person", r"\b(?:who|whom|whose)\b"),
        ("manner", rf"\bhow\b|\bwh(?:at|ich) (?:is|are|would be) (?:the |some |a )?{_GOODNESS}(?:ways?|methods?|steps|procedures?) (?:to|of|for)\b|\bin wh(?:at|ich) (?:way|manner)\b"),
        ("thing", r"\b(?:what|which)\b"),
    )
)  # fmt: skip
_YES_OR_NO = re.compile(_AUXILIARY)
_SENTENCE = re.compile(r"[?!.;]\s+|\s-+\s+|:\s+")
_COMPATIBLE: Final = frozenset(
    frozenset(pair)
    for pair in (
        ("duration", "quantity"), ("duration", "thing"), ("frequency", "duration"), ("frequency", "thing"),
        ("thing", "quantity"), ("thing", "time"), ("manner", "thing"),
    )
)  # fmt: skip
"""``What is the limit`` and ``How large may it be`` ask the same; the words that differ are judged elsewhere."""


def question_types(wording: Wording) -> frozenset[str]:
    """Of each of its sentences that asks; empty for a list of key words or an order."""
    text = wording.text.lower()
    return frozenset(kind for part in _SENTENCE.split(text) if (kind := _of(part.strip())) is not None)


def _of(sentence: str) -> str | None:
    """The first word that asks decides; behind ``Does …`` or ``Is …`` none does."""
    if _YES_OR_NO.match(sentence):
        return "yes-no"
    found = [(match.start(), kind) for kind, pattern in _PATTERNS if (match := pattern.search(sentence))]
    if found:
        return min(found, key=lambda place: place[0])[1]
    clause = sentence.rpartition(", ")[2]
    return "yes-no" if _YES_OR_NO.match(clause) else None


def compatible(left: frozenset[str], right: frozenset[str]) -> bool:
    """Whether both may have the same answer. Unknown fits nothing but the same."""
    return left == right or (len(left) == len(right) == 1 and (left | right) in _COMPATIBLE)
