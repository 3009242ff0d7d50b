"""Files of a multipart body one after another, each held in memory only up to the limit of a document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ragkube_api.errors import MalformedBodyError
from ragkube_api.services.deadline import Deadline

_MAX_HEADER_BYTES: Final = 16 * 1024


@dataclass(slots=True)
class Part:
    """One file; ``body`` is None when it is above the limit. ``filename`` is None for a plain form field."""

    name: str
    filename: str | None
    content_type: str
    body: bytes | None


@dataclass(slots=True)
class _Collector:
    """Callbacks of the push parser; finished parts queue up in ``done``."""

    limit: int
    done: list[Part] = field(default_factory=list)
    finished: bool = False
    _headers: dict[str, bytes] = field(default_factory=dict)
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _body: bytearray | None = field(default_factory=bytearray)

    def part_begin(self) -> None:
        self._headers, self._body = {}, bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check(self._name)

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check(self._value)

    def header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._body is None:
            return
        self._body += data[start:end]
        if len(self._body) > self.limit:
            self._body = None

    def part_end(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        filename = options.get(b"filename")
        self.done.append(
            Part(
                name=_text(options.get(b"name", b"")),
                filename=None if filename is None else _text(filename),
                content_type=_text(self._headers.get("content-type", b"")),
                body=None if self._body is None else bytes(self._body),
            )
        )
        self._body = bytearray()

    def end(self) -> None:
        self.finished = True

    @staticmethod
    def _check(header: bytearray) -> None:
        if len(header) > _MAX_HEADER_BYTES:
            raise MalformedBodyError("A part of the multipart body has a header that is too long.")


async def parts(request: Request, limit: int, seconds: float) -> AsyncIterator[Part]:
    """Every part as soon as it is complete. ``seconds`` limits the wait for each piece of the body."""
    collector = _Collector(limit)
    parser = _parser(request, collector)
    stream = request.stream().__aiter__()
    while True:
        async with Deadline(seconds):
            piece = await anext(stream, None)
        if piece is None:
            break
        try:
            parser.write(piece)
        except FormParserError as error:
            raise MalformedBodyError("The body is no valid multipart/form-data.") from error
        while collector.done:
            yield collector.done.pop(0)
    if not collector.finished:
        raise MalformedBodyError("The multipart body ends too early.")


def _parser(request: Request, collector: _Collector) -> MultipartParser:
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if media_type != b"multipart/form-data" or not boundary:
        raise MalformedBodyError("Send the files as multipart/form-data.")
    return MultipartParser(
        boundary,
        callbacks={
            "on_part_begin": collector.part_begin,
            "on_header_field": collector.header_field,
            "on_header_value": collector.header_value,
            "on_header_end": collector.header_end,
            "on_part_data": collector.part_data,
            "on_part_end": collector.part_end,
            "on_end": collector.end,
        },
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
