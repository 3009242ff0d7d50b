"""The one form in which text is stored, so that offsets mean the same everywhere."""

from __future__ import annotations

import re
import unicodedata

_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufeff]")
_NEWLINES = re.compile("\r\n|\r|\x0b|\x0c")
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Newlines as ``\\n``; no control characters, byte-order marks or lone surrogates; NFC."""
    text = _NEWLINES.sub("\n", text)
    text = _UNPRINTABLE.sub("", text)
    text = _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
    return unicodedata.normalize("NFC", text)


def one_line(text: str | None, *, limit: int = 300) -> str | None:
    """A title: spaces folded, cut at ``limit``; None when nothing is left."""
    if text is None:
        return None
    return " ".join(clean(text).split())[:limit].rstrip() or None
