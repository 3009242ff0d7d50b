"""Metadata of an upload, from headers and query parameters.

``X-Ragkube-Meta-<key>: text`` or ``?meta.<key>=text`` give texts (a header's key is lower-case);
``X-Ragkube-Metadata: {"year": 2024}`` gives typed values as JSON. The query wins over headers.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import orjson
from fastapi import Request

from ragkube_api.domain import Metadata, Scalar
from ragkube_api.routes.request import invalid

_PREFIX: Final = "x-ragkube-meta-"
_JSON_HEADER: Final = "x-ragkube-metadata"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_MAX_KEYS, _MAX_CHARACTERS = 32, 1024


def metadata_of(request: Request) -> Metadata:
    """All of it, checked; raises ``InvalidRequestError`` with the name of the header or parameter."""
    found: dict[str, Scalar] = {}
    for name, value in request.headers.items():
        if name == _JSON_HEADER:
            found.update(_typed(value))
        elif name.startswith(_PREFIX):
            found[_key(name.removeprefix(_PREFIX), name)] = _text(_decoded(value), name)
    for name, value in request.query_params.multi_items():
        if not name.startswith("meta."):
            raise invalid(name, "unknown parameter; metadata is given as meta.<key>=<text>")
        found[_key(name.removeprefix("meta."), name)] = _text(value, name)
    if len(found) > _MAX_KEYS:
        raise invalid("metadata", f"at most {_MAX_KEYS} keys")
    return found


def _typed(header: str) -> dict[str, Scalar]:
    try:
        values = orjson.loads(_decoded(header))
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise invalid("X-Ragkube-Metadata", "must be a JSON object")
    return {_key(key, f"X-Ragkube-Metadata.{key}"): _scalar(key, value) for key, value in values.items()}


def _scalar(key: str, value: Any) -> Scalar:
    name = f"X-Ragkube-Metadata.{key}"
    if isinstance(value, str):
        return _text(value, name)
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise invalid(name, "must be a text, a number, true or false")


def _key(key: str, name: str) -> str:
    if not _KEY.fullmatch(key):
        raise invalid(name, "a key has 1 to 64 letters, digits, '_' or '-' and begins with a letter or '_'")
    return key


def _text(value: str, name: str) -> str:
    if len(value) > _MAX_CHARACTERS:
        raise invalid(name, f"at most {_MAX_CHARACTERS} characters")
    return value


def _decoded(value: str) -> str:
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return value
