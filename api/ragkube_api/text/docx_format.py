"""Reader of Word files, as Markdown: headings, lists and tables are kept."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from ragkube_api.domain import ExtractedText
from ragkube_api.errors import (
    BrokenDocumentError,
    DocumentTooLargeError,
    EncryptedDocumentError,
    MislabelledDocumentError,
)
from ragkube_api.text import sniffing

MAX_UNPACKED = 256 * 1024 * 1024
MAX_ENTRIES = 10_000
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEADING = re.compile(r"heading ([1-9])", re.IGNORECASE)
_OTHERS = {"xl/workbook.xml": "an Excel workbook", "ppt/presentation.xml": "a PowerPoint file"}


def read_docx(body: bytes, charset: str | None) -> ExtractedText:  # noqa: ARG001  one signature for all readers
    """Paragraphs and tables in their order; the title is the file's own, or its first heading."""
    _check_container(body)
    from docx import Document  # slow to import, and most documents are no Word files

    try:
        document = Document(io.BytesIO(body))
        blocks = list(_blocks(document))
        title = document.core_properties.title
    except Exception as error:  # python-docx lets what it misses in a damaged file out as any exception
        raise BrokenDocumentError("the document is a damaged Word file") from error
    text = "\n\n".join(block for block in blocks if block)
    first = next((block.lstrip("# ") for block in blocks if block.startswith("#")), None)
    return ExtractedText(text, title or first)


def _check_container(body: bytes) -> None:
    if body.startswith(_OLE) and "EncryptedPackage".encode("utf-16-le") in body:
        raise EncryptedDocumentError("the Word file asks for a password")
    if not body.startswith(b"PK"):
        kind = sniffing.kind(body)
        if kind is not None:
            raise MislabelledDocumentError(f"the document is said to be a Word file (docx) but is {kind}")
        raise BrokenDocumentError("the document does not begin as a Word file (docx) does")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise BrokenDocumentError("the document is a damaged Word file") from error
    _check_entries(entries)


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    names = {entry.filename for entry in entries}
    if "word/document.xml" not in names:
        kind = next((kind for name, kind in _OTHERS.items() if name in names), "a ZIP archive")
        raise MislabelledDocumentError(f"the document is said to be a Word file (docx) but is {kind}")
    if any(entry.flag_bits & 1 for entry in entries):
        raise EncryptedDocumentError("the Word file asks for a password")
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise DocumentTooLargeError(f"the Word file unpacks to more than {MAX_UNPACKED // 2**20} MB")


def _blocks(document: Any) -> Iterator[str]:
    for block in document.iter_inner_content():
        yield _table(block) if hasattr(block, "rows") else _paragraph(block)


def _paragraph(paragraph: Any) -> str:
    text = str(paragraph.text).strip()
    style = (paragraph.style.name if paragraph.style is not None else None) or ""
    if not text:
        return ""
    if style == "Title":
        return f"# {' '.join(text.split())}"
    if heading := _HEADING.fullmatch(style):
        return f"{'#' * min(int(heading.group(1)), 6)} {' '.join(text.split())}"
    return f"- {text}" if style.startswith("List") else text


def _table(table: Any) -> str:
    rows: list[str] = []
    for row in table.rows:
        cells = dict.fromkeys(row.cells)  # a merged cell stands in the row once for each column it spans
        rows.append("| " + " | ".join(" ".join(str(cell.text).split()) for cell in cells) + " |")
        if len(rows) == 1:
            rows.append("|" + " --- |" * len(cells))
    return "\n".join(rows)
