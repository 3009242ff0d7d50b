"""Cuts stored text into passages with exact spans."""

from __future__ import annotations

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
    for start, piece in _splitter(markdown, max_characters).chunk_indices(text):
        if piece.strip():
            chunks.append(Chunk(len(chunks), start, start + len(piece), piece, paths.at(start)))
    return chunks


def context(title: str, chunk: Chunk) -> str:
    """What stands above a passage: the title and the path of headings, each once."""
    parts = [title, *chunk.heading]
    return "\n".join(dict.fromkeys(part for part in parts if part))


def index_text(title: str, chunk: Chunk) -> str:
    """What is embedded and indexed of a passage: its context, then its text."""
    return f"{context(title, chunk)}\n\n{chunk.text}".lstrip("\n")
