"""kopf without memory: it keeps nothing in annotations and compares no objects, which would be half of its work."""

from __future__ import annotations

from typing import Any

import kopf


class NoDiff(kopf.DiffBaseStorage):
    """Objects have no essence to compare: no handler of ours asks what changed."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        """Nothing, instead of a deep copy of every object at every event."""
        del body, extra_fields
        return {}

    def fetch(self, *, body: Any) -> Any:
        """Nothing was stored."""
        del body

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Nothing is stored."""


class NoProgress(kopf.ProgressStorage):
    """No handler of ours is tried again by kopf: workers do that."""

    def fetch(self, *, key: Any, body: Any) -> Any:
        """Nothing was stored."""
        del key, body

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        """Nothing is stored."""

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        """Nothing is there."""

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        """Nothing is there."""

    def clear(self, *, essence: Any) -> Any:
        """The essence, which holds no records."""
        return essence
