"""Where the headings of a Markdown text stand."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_LINE = re.compile(r"[^\n]*\n?")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*\n?\Z")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*\n?\Z")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_NO_PARAGRAPH = re.compile(r"\s*(?:\Z|[>|<*+-]|\d+[.)]\s|#{1,6}\s)| {4}|\t")
_LONGEST = 500
_MARKS = re.compile(r"[*`]+|\[([^\]]*)\]\([^)]*\)|<[^>]*>")


@dataclass(frozen=True, slots=True)
class Heading:
    """``start`` is the offset of its line."""

    start: int
    level: int
    title: str


def headings(text: str) -> Iterator[Heading]:
    """Headings in order, ATX and setext; what stands in fenced code is none."""
    fence = ""
    previous = ""
    previous_start = 0
    for match in _LINE.finditer(text):
        line = match.group()
        opened = _FENCE.match(line)
        if fence:
            if opened and opened.group(1).startswith(fence) and not line[opened.end() :].strip():
                fence = ""
            previous = ""
            continue
        if opened:
            fence, previous = opened.group(1), ""
        elif atx := _ATX.match(line):
            yield from _heading(match.start(), len(atx.group(1)), atx.group(2))
            previous = ""
        elif (under := _SETEXT.match(line)) and not _NO_PARAGRAPH.match(previous):
            yield from _heading(previous_start, 1 if under.group(1)[0] == "=" else 2, previous)
            previous = ""
        else:
            previous, previous_start = line, match.start()


def _heading(start: int, level: int, raw: str) -> Iterator[Heading]:
    title = " ".join(_MARKS.sub(lambda m: m.group(1) or "", raw[:_LONGEST]).split())
    if title:
        yield Heading(start, level, title)


class HeadingPaths:
    """Answers which headings stand above an offset."""

    def __init__(self, found: Sequence[Heading]) -> None:
        self._starts = [heading.start for heading in found]
        self._paths: list[tuple[str, ...]] = []
        stack: list[Heading] = []
        for heading in found:
            while stack and stack[-1].level >= heading.level:
                stack.pop()
            stack.append(heading)
            self._paths.append(tuple(item.title for item in stack))

    def at(self, offset: int) -> tuple[str, ...]:
        """The path of headings whose lines begin at or before ``offset``."""
        index = bisect_right(self._starts, offset)
        return self._paths[index - 1] if index else ()
