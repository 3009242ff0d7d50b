"""What bytes really are, whatever their label says."""

from __future__ import annotations

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office file of the old binary format"),
    (b"{\\rtf", "an RTF document"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"OggS", "an Ogg media file"),
    (b"ID3", "an MP3 file"),
)
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
PDF_HEADER_WINDOW = 1024


def binary_kind(body: bytes) -> str | None:
    """The name of a binary format, with its article; None for what may be text."""
    for magic, name in _MAGIC:
        if body.startswith(magic):
            return name
    if body[:4] == b"RIFF" or body[4:8] == b"ftyp":
        return "a media file"
    if b"\x00" in body[:65536] and not body.startswith(_UTF16_MARKS):
        return "binary data"
    return None


def is_html(body: bytes) -> bool:
    """Whether it begins as an HTML page does."""
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<body"))


def is_utf8(body: bytes) -> bool:
    """Whether the beginning is UTF-8 text."""
    try:
        body[:65536].decode()
    except UnicodeDecodeError as error:
        return error.start > 65530
    return True


def kind(body: bytes) -> str | None:
    """A name for what the bytes are, with its article; None when they are nothing known."""
    if (name := binary_kind(body)) is not None:
        return name
    if is_html(body):
        return "an HTML page"
    return "plain text" if is_utf8(body) else None
