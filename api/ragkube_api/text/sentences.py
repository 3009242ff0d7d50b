"""Sentences of a passage, with their spans; what only looks like one (headings, link lists, rules) is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"[^\n]*(?:\n|\Z)")
_OWN_LINE = re.compile(r"\s*(?:[-*+]\s+(?:\[[ xX]\]\s+)?|\d{1,3}[.)]\s+|\||>\s?)")
_NO_SENTENCE = re.compile(
    r"\s*(?:#{1,6}\s|```|~~~|<!--|-->|[-=*_~|:\s]+\Z|(?:[-*+]|\d+[.)])?\s*\[[^\]]*\]\([^)]*\)\s*\Z|\[[^\]]*\]:)"
)
_END = re.compile(r"[.!?…]+[\"'\u201d\u2019)\]*_`]*(?=\s)|[。！？]+")  # noqa: RUF001  full-width stops are meant
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Z]|e\.g|i\.e|etc|vs|cf|approx|resp|incl|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eq|Sec|Vol|pp|Jr|Sr|Inc|Ltd|Co))\.\Z"
)
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text == passage[start:end]``."""

    start: int
    end: int
    text: str


def sentences(passage: str) -> Iterator[Sentence]:
    """In order; a list item or a table row is one of its own, code is line by line."""
    for start, end in _blocks(passage):
        yield from _cut(passage, start, end)


def _blocks(passage: str) -> Iterator[tuple[int, int]]:
    """Paragraphs, items and rows, without the marks in front of them."""
    begin: int | None = None
    fenced = False
    for match in _LINE.finditer(passage):
        line = match.group().rstrip("\n")
        fence = line.lstrip().startswith(("```", "~~~"))
        mark = _OWN_LINE.match(line)
        apart = fenced or fence or bool(mark) or not line.strip() or bool(_NO_SENTENCE.match(line))
        if apart and begin is not None:
            yield begin, match.start()
            begin = None
        fenced ^= fence
        if fence or not line.strip() or _NO_SENTENCE.match(line):
            continue
        if begin is None:
            begin = match.start() + (mark.end() if mark and not fenced else 0)
        if fenced:
            yield begin, match.start() + len(line)
            begin = None
    if begin is not None:
        yield begin, len(passage)


def _cut(passage: str, start: int, end: int) -> Iterator[Sentence]:
    position = start
    for stop in _END.finditer(passage, start, end):
        if stop.end() - position < 3 or _ABBREVIATION.search(passage, position, stop.end()):
            continue
        yield from _trimmed(passage, position, stop.end())
        position = stop.end()
    yield from _trimmed(passage, position, end)


def _trimmed(passage: str, start: int, end: int) -> Iterator[Sentence]:
    text = passage[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()[:_LONGEST].rstrip()
    if any(character.isalnum() for character in text):
        yield Sentence(start, start + len(text), text)
