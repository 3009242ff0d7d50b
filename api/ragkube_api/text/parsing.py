"""Documents to text: which reader reads what, and exact errors for what cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from ragkube_api.domain import ExtractedText
from ragkube_api.errors import DocumentTooLargeError, EmptyDocumentError, UnsupportedDocumentError
from ragkube_api.text import docx_format, html_format, pdf_format, plain_formats
from ragkube_api.text.cleaning import clean, one_line

MARKDOWN = "text/markdown"
PLAIN = "text/plain"
HTML = "text/html"
JSON = "application/json"
CSV = "text/csv"
TSV = "text/tab-separated-values"
PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

MAX_CHARACTERS = 32 * 1024 * 1024
"""Of extracted text: a small file can unfold to a very large one."""

_READERS: Mapping[str, Callable[[bytes, str | None], ExtractedText]] = MappingProxyType(
    {
        PLAIN: plain_formats.read_text,
        MARKDOWN: plain_formats.read_markdown,
        HTML: html_format.read_html,
        JSON: plain_formats.read_json,
        CSV: plain_formats.read_csv,
        TSV: plain_formats.read_tsv,
        PDF: pdf_format.read_pdf,
        DOCX: docx_format.read_docx,
    }
)
_ALIASES = {
    "text/x-markdown": MARKDOWN,
    "application/xhtml+xml": HTML,
    "text/json": JSON,
    "application/csv": CSV,
    "text/x-rst": PLAIN,
    "application/x-pdf": PDF,
}
_SUFFIXES = {
    ".txt": PLAIN, ".text": PLAIN, ".log": PLAIN, ".rst": PLAIN, ".md": MARKDOWN, ".markdown": MARKDOWN,
    ".html": HTML, ".htm": HTML, ".xhtml": HTML, ".json": JSON, ".csv": CSV, ".tsv": TSV, ".pdf": PDF,
    ".docx": DOCX,
}  # fmt: skip
_UNSAID = frozenset(
    {"", "application/octet-stream", "application/x-www-form-urlencoded", "binary/octet-stream"}
)


def content_type_for(filename: str) -> str | None:
    """The type that a file's name promises, or None when it is none that is read."""
    return _SUFFIXES.get(PurePosixPath(filename).suffix.lower())


def canonical_type(content_type: str, *, filename: str | None = None) -> str:
    """The media type to store: without parameters, aliases resolved, by file name when it is not said.

    Raises:
        UnsupportedDocumentError: it is none that is read.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    media_type = _ALIASES.get(media_type, media_type)
    if media_type in _UNSAID:
        media_type = (content_type_for(filename) if filename else None) or media_type
    if media_type in _READERS:
        return media_type
    what = f"documents of type {media_type} are not read"
    if media_type in _UNSAID:
        what = "the document's type is not said and its name does not tell it"
    raise UnsupportedDocumentError(f"{what}; send one of: {', '.join(sorted(_READERS))}")


def parse(body: bytes, content_type: str, *, filename: str | None = None) -> ExtractedText:
    """The text of a document and its title. CPU-bound: call it in a thread.

    Raises:
        DocumentError: one of its kinds, with a sentence for whoever sent the document.
    """
    media_type = canonical_type(content_type, filename=filename)
    if not body.strip():
        raise EmptyDocumentError("the document is empty")
    extracted = _READERS[media_type](body, _charset(content_type))
    if len(extracted.text) > MAX_CHARACTERS:
        msg = (
            f"the document unfolds to {len(extracted.text):,} characters; at most {MAX_CHARACTERS:,} are read"
        )
        raise DocumentTooLargeError(msg)
    text = clean(extracted.text)
    if not text.strip():
        raise EmptyDocumentError("the document has no text in it")
    return ExtractedText(text, one_line(extracted.title))


def _charset(content_type: str) -> str | None:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
