"""What a flight hands to everyone who waits for it: an answer's value, or the error that kept it from being made."""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

from ragkube_api.errors import (
    DeadlineExceededError,
    EmbedderUnavailableError,
    LLMUnavailableError,
    OverloadedError,
    RagkubeError,
    StoreUnavailableError,
)
from ragkube_api.services.sealed import seal, unseal

_NAME: Final = "flight"
_PASSED_ON: Final[dict[str, type[RagkubeError]]] = {
    kind.code: kind
    for kind in (
        DeadlineExceededError,
        EmbedderUnavailableError,
        LLMUnavailableError,
        OverloadedError,
        StoreUnavailableError,
    )
}


class Landed(NamedTuple):
    """A finished answer: its value, what was missing, and whether it is a whole one."""

    value: bytes
    degraded: tuple[str, ...] = ()
    complete: bool = True


def encode(landed: Landed) -> bytes:
    """Bytes for the others."""
    head = orjson.dumps({"degraded": landed.degraded, "complete": landed.complete})
    return seal(head + b"\n" + landed.value, _NAME)


def encode_error(error: RagkubeError) -> bytes:
    """Bytes that raise the error again where they are decoded. Its cause stays here, in the log."""
    head = {"error": error.code, "message": error.message, "retry_after": error.retry_after}
    return seal(orjson.dumps(head) + b"\n", _NAME)


def decode(result: bytes) -> Landed | None:
    """The answer; None when the bytes are damaged or of another format. Raises the error that they carry."""
    payload = unseal(result, _NAME)
    if payload is None:
        return None
    head, _, value = payload.partition(b"\n")
    fields = orjson.loads(head)
    if "error" in fields:
        kind = _PASSED_ON.get(fields["error"], OverloadedError)
        raise kind(fields["message"], retry_after=fields["retry_after"])
    return Landed(value, tuple(fields["degraded"]), fields["complete"])
