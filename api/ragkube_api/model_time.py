"""How long a request waited for a language model: what is left of its time is ours, and more pods can shorten only that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class ModelTime:
    """Seconds that one request has waited so far."""

    seconds: float = 0.0


_CURRENT: ContextVar[ModelTime | None] = ContextVar("model_time", default=None)


def start() -> ModelTime:
    """Begin to count for the request of this task and of those that it starts."""
    counted = ModelTime()
    _CURRENT.set(counted)
    return counted


@contextmanager
def waiting() -> Iterator[None]:
    """Around a call of a model."""
    began = time.perf_counter()
    try:
        yield
    finally:
        waited(time.perf_counter() - began)


def waited(seconds: float) -> None:
    """It has waited so long, for somebody else's call too."""
    counted = _CURRENT.get()
    if counted is not None:
        counted.seconds += seconds
