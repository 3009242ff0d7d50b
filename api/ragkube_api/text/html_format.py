"""Reader of HTML pages, as Markdown: all of the text but navigation, scripts and forms."""

from __future__ import annotations

import codecs
import re
from typing import Any

from ragkube_api.domain import ExtractedText
from ragkube_api.errors import BrokenDocumentError, DocumentTooLargeError, MislabelledDocumentError
from ragkube_api.text import sniffing

_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([a-zA-Z0-9_:.-]+)", re.IGNORECASE)
_SKIPPED = frozenset(
    {
        "script", "style", "template", "noscript", "head", "nav", "form", "svg", "iframe", "object", "canvas",
        "button", "select", "audio", "video", "math",
    }
)  # fmt: skip
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "dialog", "div", "dl", "dt",
        "fieldset", "figcaption", "figure", "footer", "header", "hr", "html", "li", "main", "ol", "p", "pre",
        "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul", "h1", "h2", "h3", "h4", "h5", "h6",
    }
)  # fmt: skip
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_TIGHT = frozenset({"li", "tr", "dt", "dd"})
_MAX_CHARACTERS = 32 * 1024 * 1024


def read_html(body: bytes, charset: str | None) -> ExtractedText:
    """The title is the page's ``<title>``, or its first heading."""
    if (kind := sniffing.binary_kind(body)) is not None:
        raise MislabelledDocumentError(f"the document is said to be HTML but is {kind}")
    from lxml import etree  # slow to import, and most documents are no HTML

    source = _decode(body, charset)
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = etree.fromstring(source.encode("utf-8", "replace"), parser)
    except (etree.LxmlError, ValueError) as error:
        raise BrokenDocumentError("the document is no HTML that can be read") from error
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise BrokenDocumentError("the document is HTML nested too deeply")
    if root is None:
        return ExtractedText("", None)
    title = root.findtext(".//title")
    writer = _Writer()
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if isinstance(element.tag, str):
            (writer.start if event == "start" else writer.end)(element)
    text = writer.text()
    return ExtractedText(text, title if title and title.strip() else writer.first_heading)


def _decode(body: bytes, charset: str | None) -> str:
    declared = _META_CHARSET.search(body[:4096])
    marked = "utf-16" if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None
    named = charset or marked or (declared.group(1).decode("ascii") if declared else None)
    for encoding in (named, "utf-8-sig"):
        try:
            return body.decode(encoding or "utf-8-sig")
        except (LookupError, UnicodeDecodeError):
            continue
    return body.decode("windows-1252", "replace")  # what a browser takes when nothing is said


class _Writer:
    """Collects lines while the tree is walked; never recursive, so that no page is too deep."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._prefix = ""
        self._skip = 0
        self._pre = 0
        self._characters = 0
        self.first_heading: str | None = None

    def start(self, element: Any) -> None:
        tag = element.tag
        if self._skip or tag in _SKIPPED:
            self._skip += 1
            return
        if tag in _BLOCKS:
            self._break(gap=tag not in _TIGHT)
        if tag in _HEADINGS:
            self._prefix = "#" * int(tag[1]) + " "
        elif tag == "li":
            self._prefix = "- "
        elif tag == "pre":
            self._pre += 1
            self._lines.append("```")
        elif tag == "br":
            self._line.append("\n")
        elif tag in {"td", "th"}:
            self._line.append(" | ")
        elif tag == "img":
            self._add(element.get("alt"))
        self._add(element.text)

    def end(self, element: Any) -> None:
        tag = element.tag
        if self._skip:
            self._skip -= 1
        else:
            if tag in _BLOCKS:
                self._break(gap=tag not in _TIGHT)
            if tag == "pre":
                self._pre -= 1
                self._lines.append("```")
                self._lines.append("")
        if not self._skip:
            self._add(element.tail)

    def text(self) -> str:
        self._break(gap=False)
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._lines)).strip("\n")

    def _add(self, text: str | None) -> None:
        if not text:
            return
        self._characters += len(text)
        if self._characters > _MAX_CHARACTERS:
            raise DocumentTooLargeError(f"the page has more than {_MAX_CHARACTERS:,} characters")
        self._line.append(text if self._pre else re.sub(r"\s+", " ", text))

    def _break(self, *, gap: bool) -> None:
        raw = "".join(self._line)
        self._line.clear()
        content = raw.strip("\n") if self._pre else self._tidy(raw)
        if content.strip():
            if self._prefix.startswith("#"):
                content = content.replace("\n", " ")
                self.first_heading = self.first_heading or content
            self._lines.append(self._prefix + content)
            self._prefix = ""
        if gap and not self._pre and self._lines and self._lines[-1]:
            self._lines.append("")

    @staticmethod
    def _tidy(raw: str) -> str:
        lines = (re.sub(r" {2,}", " ", line).strip() for line in raw.split("\n"))
        return "\n".join(line for line in lines if line).removeprefix("| ")
