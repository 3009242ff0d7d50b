"""Readers of text files: plain, Markdown, JSON, CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from ragkube_api.domain import ExtractedText
from ragkube_api.errors import BrokenDocumentError, DocumentTooLargeError, MislabelledDocumentError
from ragkube_api.text import sniffing
from ragkube_api.text.headings import headings

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)\s*\n", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_MAX_JSON_LEAVES = 1_000_000
_MAX_CSV_COLUMNS = 10_000
_TITLE_KEYS = ("title", "name")


def decode(body: bytes, charset: str | None, *, said: str) -> str:
    """Text in the charset that was said, or by byte-order mark, or UTF-8."""
    if (kind := sniffing.binary_kind(body)) is not None:
        raise MislabelledDocumentError(f"the document is said to be {said} but is {kind}")
    marked = "utf-16" if body.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    encoding = charset or marked
    try:
        return body.decode(marked if encoding.lower() in {"utf-8", "utf8"} else encoding)
    except LookupError as error:
        raise BrokenDocumentError(f"the charset {encoding!r} is not known") from error
    except UnicodeDecodeError as error:
        hint = "" if charset else "; name its charset in the Content-Type, e.g. charset=windows-1252"
        name = "UTF-8" if marked == "utf-8-sig" and not charset else encoding
        msg = f"byte {error.start + 1:,} of the document is not valid {name}{hint}"
        raise BrokenDocumentError(msg) from error


def read_text(body: bytes, charset: str | None) -> ExtractedText:
    """Plain text has no title."""
    return ExtractedText(decode(body, charset, said="plain text"), None)


def read_markdown(body: bytes, charset: str | None) -> ExtractedText:
    """The title is the front matter's, or the first heading."""
    text = decode(body, charset, said="Markdown").replace("\r\n", "\n")
    if (front := _FRONT_MATTER.match(text)) and (title := _FRONT_TITLE.search(front.group(1))):
        return ExtractedText(text, title.group(1).strip("\"'"))
    first = next(iter(headings(text)), None)
    return ExtractedText(text, first.title if first else None)


def read_json(body: bytes, charset: str | None) -> ExtractedText:
    """One line for each value, with the path that leads to it; records of a list are set apart."""
    text = decode(body, charset, said="JSON")
    try:
        value = json.loads(text)
    except ValueError as error:
        if sniffing.is_html(body):
            raise MislabelledDocumentError("the document is said to be JSON but is an HTML page") from error
        raise BrokenDocumentError(f"the document is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BrokenDocumentError("the document is JSON nested too deeply") from error
    lines: list[str] = []
    for line in _json_lines(value, ""):
        lines.append(line)
        if len(lines) > _MAX_JSON_LEAVES:
            raise DocumentTooLargeError(f"the document has more than {_MAX_JSON_LEAVES:,} JSON values")
    return ExtractedText("\n".join(lines), _json_title(value))


def _json_lines(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _json_lines(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _json_lines(item, path)
            if isinstance(item, dict):
                yield ""
    elif value is not None and value != "":
        shown = value if isinstance(value, str) else json.dumps(value)
        yield f"{path}: {shown}" if path else shown


def _json_title(value: Any) -> str | None:
    while isinstance(value, dict):
        for key in _TITLE_KEYS:
            if isinstance(value.get(key), str):
                return str(value[key])
        value = next(iter(value.values())) if len(value) == 1 else None
    return None


def read_csv(body: bytes, charset: str | None) -> ExtractedText:
    """One line for each row, every value with the name of its column, so that a passage explains itself."""
    return _read_table(body, charset, said="CSV", delimiters=",;\t|")


def read_tsv(body: bytes, charset: str | None) -> ExtractedText:
    """Like CSV, by tabs."""
    return _read_table(body, charset, said="TSV", delimiters="\t")


def _read_table(body: bytes, charset: str | None, *, said: str, delimiters: str) -> ExtractedText:
    text = decode(body, charset, said=said)
    if sniffing.is_html(body):
        raise MislabelledDocumentError(f"the document is said to be {said} but is an HTML page")
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(delimiters, key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise BrokenDocumentError(f"the document is not valid {said}: {error}") from error
    if not rows:
        return ExtractedText("", None)
    if max(map(len, rows)) > _MAX_CSV_COLUMNS:
        raise BrokenDocumentError(f"the document has rows of more than {_MAX_CSV_COLUMNS:,} columns")
    header, *records = rows
    if not records:
        return ExtractedText(" | ".join(header), None)
    return ExtractedText("\n".join(_row_line(header, row) for row in records), None)


def _row_line(header: list[str], row: list[str]) -> str:
    names = header + [""] * (len(row) - len(header))
    pairs = ((name.strip(), " ".join(value.split())) for name, value in zip(names, row, strict=False))
    return "; ".join(f"{name}: {value}" if name else value for name, value in pairs if value)
