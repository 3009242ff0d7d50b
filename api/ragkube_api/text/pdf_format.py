"""Reader of PDF files."""

from __future__ import annotations

import io
import time
import unicodedata
from typing import TYPE_CHECKING

from ragkube_api.domain import ExtractedText
from ragkube_api.errors import (
    BrokenDocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    EncryptedDocumentError,
    MislabelledDocumentError,
)
from ragkube_api.text import sniffing

if TYPE_CHECKING:
    from pypdf import PdfReader

MAX_PAGES = 10_000
MAX_CHARACTERS = 32 * 1024 * 1024
MAX_SECONDS = 120.0


def read_pdf(body: bytes, charset: str | None) -> ExtractedText:  # noqa: ARG001  one signature for all readers
    """The text of all pages, an empty line between them; the title is the file's own."""
    if b"%PDF-" not in body[: sniffing.PDF_HEADER_WINDOW]:
        if (kind := sniffing.kind(body)) is not None:
            raise MislabelledDocumentError(f"the document is said to be PDF but is {kind}")
        raise BrokenDocumentError("the document does not begin as a PDF does")
    try:
        reader = _open(body)
        pages = _pages(reader)
        title = reader.metadata.title if reader.metadata else None
    except (BrokenDocumentError, DocumentTooLargeError, EncryptedDocumentError):
        raise
    except Exception as error:  # pypdf lets what it stumbles over in a damaged file out as any exception
        raise BrokenDocumentError("the document is a damaged PDF") from error
    text = unicodedata.normalize("NFKC", "\n\n".join(page for page in pages if page))
    if not text.strip():
        raise EmptyDocumentError("the PDF has no text in it (scanned pages are not recognised)")
    return ExtractedText(text, title if isinstance(title, str) and _is_title(title) else None)


def _open(body: bytes) -> PdfReader:
    from pypdf import PasswordType, PdfReader  # slow to import, and most documents are no PDF

    reader = PdfReader(io.BytesIO(body))
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise EncryptedDocumentError("the PDF asks for a password")
    return reader


def _pages(reader: PdfReader) -> list[str]:
    count = len(reader.pages)
    if count > MAX_PAGES:
        raise DocumentTooLargeError(f"the PDF has {count:,} pages; at most {MAX_PAGES:,} are read")
    deadline = time.monotonic() + MAX_SECONDS
    pages: list[str] = []
    characters = 0
    for page in reader.pages:
        pages.append(page.extract_text().strip())
        characters += len(pages[-1])
        if characters > MAX_CHARACTERS:
            raise DocumentTooLargeError(f"the PDF has more than {MAX_CHARACTERS:,} characters")
        if time.monotonic() > deadline:
            raise DocumentTooLargeError(f"reading the PDF takes longer than {MAX_SECONDS:.0f} seconds")
    return pages


def _is_title(title: str) -> bool:
    """Word processors leave file names and their own name there."""
    lowered = title.strip().lower()
    return not lowered.startswith(("microsoft word -", "untitled")) and not lowered.endswith(
        (".doc", ".docx")
    )
