"""The questions that have cached answers, to be found by meaning. In memory, bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ragkube_api.domain import EntryNote, Key, Vectors
from ragkube_api.ports import FencedCache

MOST_QUESTIONS: Final = 20_000
"""Of all tenants together: 5 MB of vectors of 256 dimensions."""
_MOST_OF_ONE: Final = 5_000
_PAGE: Final = 100
"""A few milliseconds of embedding: so long others wait for the processor at most."""
_LEAST_COSINE: Final = 0.6
_MOST_CANDIDATES: Final = 5

Embed: TypeAlias = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cached question and how near it is (cosine)."""

    key: Key
    question: str
    cosine: float


@dataclass(slots=True)
class _Group:
    """Questions of one tenant and partition, oldest first; vectors as bytes, 127 for 1."""

    questions: OrderedDict[str, str] = field(default_factory=OrderedDict)
    vectors: dict[str, NDArray[np.int8]] = field(default_factory=dict)
    matrix: NDArray[np.int8] | None = None

    def put(self, digest: str, question: str, vector: NDArray[np.int8]) -> None:
        self.drop(digest)
        self.questions[digest] = question
        self.vectors[digest] = vector
        while len(self.questions) > _MOST_OF_ONE:
            self.drop(next(iter(self.questions)))

    def drop(self, digest: str) -> None:
        self.matrix = None
        self.questions.pop(digest, None)
        self.vectors.pop(digest, None)

    def nearest(self, vector: Vectors) -> list[tuple[float, str]]:
        if self.matrix is None:
            self.matrix = np.stack([self.vectors[digest] for digest in self.questions])
        cosines = (self.matrix @ vector) / 127
        order = np.argsort(-cosines, kind="stable")[:_MOST_CANDIDATES]
        digests = list(self.questions)
        return [(float(cosines[n]), digests[n]) for n in order if cosines[n] >= _LEAST_COSINE]


class QuestionIndex:
    """Fed by what ``FencedCache.entries`` tells of this replica's answers and of the others'."""

    def __init__(self, cache: FencedCache, embed: Embed) -> None:
        self._cache = cache
        self._embed = embed
        self._groups: OrderedDict[tuple[str, str], _Group] = OrderedDict()
        self._since: dict[str, float] = {}

    async def refresh(self, tenant: str) -> tuple[Sequence[EntryNote], bool]:
        """Take up a page of what was stored since the last time, tell it, and whether there is more.

        Raises ``CacheUnavailableError``.
        """
        since = self._since.get(tenant, 0.0)
        notes = await self._cache.entries(tenant, since=since, limit=_PAGE)
        self._add(tenant, [note for note in notes if note.key.kind == "answer"])
        return notes, len(notes) >= _PAGE and notes[-1].stored != since

    def candidates(self, tenant: str, partition: str, question: str) -> list[Candidate]:
        """The nearest cached questions of the partition, nearest first."""
        group = self._groups.get((tenant, partition))
        if group is None or not group.questions:
            return []
        self._groups.move_to_end((tenant, partition))
        (vector,) = self._embed([question])
        return [
            Candidate(Key("answer", digest), group.questions[digest], cosine)
            for cosine, digest in group.nearest(vector)
        ]

    def drop(self, tenant: str, partition: str, key: Key) -> None:
        """The cache does not have it any more."""
        group = self._groups.get((tenant, partition))
        if group is not None:
            group.drop(key.digest)

    def _add(self, tenant: str, notes: Sequence[EntryNote]) -> None:
        if notes:
            self._since[tenant] = max(note.stored for note in notes)
        unknown = [note for note in notes if not self._known(tenant, note)]
        if not unknown:
            return
        vectors = self._embed([note.about.question for note in unknown])
        for note, vector in zip(unknown, vectors, strict=True):
            group = self._groups.setdefault((tenant, note.about.partition), _Group())
            group.put(note.key.digest, note.about.question, np.rint(vector * 127).astype(np.int8))
        self._trim()

    def _known(self, tenant: str, note: EntryNote) -> bool:
        group = self._groups.get((tenant, note.about.partition))
        return group is not None and note.key.digest in group.questions

    def _trim(self) -> None:
        while sum(len(group.questions) for group in self._groups.values()) > MOST_QUESTIONS:
            self._groups.popitem(last=False)
