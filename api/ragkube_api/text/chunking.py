"""Cuts stored text into passages with exact spans."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from ragkube_api.domain import Chunk
from ragkube_api.text.headings import HeadingPaths, headings

_WITH_HEADINGS = frozenset(
    {
        "text/markdown",
        "text/html",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    }
)
"""Types whose stored text is Markdown."""


_BLOCK = 100_000
"""The splitter's time grows with the square of a text without joints (base64, say): it gets pieces of this size."""


@lru_cache(maxsize=16)
def _splitter(markdown: bool, max_characters: int) -> MarkdownSplitter | TextSplitter:
    return (MarkdownSplitter if markdown else TextSplitter)(max_characters)


def split(text: str, *, content_type: str, max_characters: int) -> list[Chunk]:
    """Passages of at most ``max_characters``, in order, cut where the text has its joints.

    ``chunk.text == text[chunk.start:chunk.end]`` holds for each; only white space lies between them.
    """
    markdown = content_type.partition(";")[0].strip().lower() in _WITH_HEADINGS
    paths = HeadingPaths(list(headings(text)) if markdown else [])
    chunks: list[Chunk] = []
    splitter = _splitter(markdown, max_characters)
    for block, end in _blocks(text):
        for offset, piece in splitter.chunk_indices(text[block:end]):
            start = block + offset
            if piece.strip():
                chunks.append(Chunk(len(chunks), start, start + len(piece), piece, paths.at(start)))
    return chunks


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """The whole text when it is short, else parts that end at a joint as far as there is one."""
    start = 0
    while len(text) - start > _BLOCK:
        least, most = start + _BLOCK // 2, start + _BLOCK
        joints = (text.rfind(joint, least, most) for joint in ("\n#", "\n\n", "\n", " "))
        end = next((joint + 1 for joint in joints if joint >= 0), most)
        yield start, end
        start = end
    yield start, len(text)


def context(title: str, chunk: Chunk) -> str:
    """What stands above a passage: the title and the path of headings, each once."""
    parts = [title, *chunk.heading]
    return "\n".join(dict.fromkeys(part for part in parts if part))


def index_text(title: str, chunk: Chunk) -> str:
    """What is embedded and indexed of a passage: its context, then its text."""
    return f"{context(title, chunk)}\n\n{chunk.text}".lstrip("\n")
