"""Which names a document may have: every one of them can be written into a URL's path and read back."""

from __future__ import annotations

import unicodedata

MAX_LENGTH = 512


def problem_with_id(document_id: str) -> str | None:
    """What is wrong with the id, or None."""
    if not 1 <= len(document_id) <= MAX_LENGTH:
        return f"it must have 1 to {MAX_LENGTH} characters"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in document_id):
        return "it must not contain control characters"
    if any(segment in {"", ".", ".."} for segment in document_id.split("/")):
        return "no part between slashes may be empty, '.' or '..'"
    if document_id.endswith("/content"):
        return "it must not end in '/content', which names the text of a document"
    return None
