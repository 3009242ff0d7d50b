"""What the services need from the outside world. Adapters implement these; each port has one behaviour suite.

Every method may raise the ``DependencyUnavailableError`` of its port; nothing else crosses it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from ragkube_api.domain import (
    Asked,
    Cached,
    Document,
    DocumentPage,
    DocumentWrite,
    EntryNote,
    Fence,
    Fill,
    Generation,
    Key,
    LevelStatistics,
    Lookup,
    Passage,
    Proposal,
    SearchQuery,
    Selector,
    SourceStatus,
    Totals,
    Vectors,
)

HEARD_SECONDS: Final = 30.0
"""A replica that did not hand over its counts for so long has ended."""


class VectorStore(Protocol):
    """Documents, their text and their chunks, per tenant. Raises ``StoreUnavailableError``."""

    async def put(self, write: DocumentWrite) -> None:
        """Add or replace a document atomically: a search sees all of the old chunks or all of the new ones.

        On return every replica's later search sees it. A crash in the middle leaves the old document.
        Raises ``StorageFullError`` when there is no room.
        """

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """The document's description, or None."""

    async def text(self, tenant: str, document_id: str) -> tuple[Document, str] | None:
        """The document with the stored text that offsets refer to, or None."""

    async def delete(self, tenant: str, document_id: str) -> bool:
        """Remove it with its chunks; False when there was none."""

    async def list(
        self, tenant: str, *, cursor: str | None, limit: int, source: str | None = None
    ) -> DocumentPage:
        """Documents in order of their id, starting after ``cursor``; ``source`` keeps one source's only."""

    async def count(self, tenant: str) -> int:
        """Number of documents."""

    async def search(self, tenant: str, query: SearchQuery) -> Sequence[Passage]:
        """The ``k`` best passages, best first, only of current document versions; empty for an unknown tenant."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot."""


class Embedder(Protocol):
    """Text to unit vectors. Raises ``EmbedderUnavailableError``."""

    @property
    def name(self) -> str:
        """Model and dimensions: part of every fingerprint and cache key."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """One row a text."""

    async def embed_query(self, text: str) -> Vectors:
        """Shape (dimensions,)."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot."""


class Answerer(Protocol):
    """Writes the answer from passages. Raises ``LLMUnavailableError``."""

    @property
    def default_model(self) -> str | None:
        """The model used when the request names none; None when there is no model."""

    @property
    def allowed_models(self) -> frozenset[str]:
        """What a request may name."""

    @property
    def revision(self) -> str:
        """Changes when the prompt or the method changes: part of every cache key."""

    async def answer(
        self, question: str, passages: Sequence[Passage], *, model: str | None, timeout_seconds: float
    ) -> Generation:
        """Answer from these passages only; without passages it says that it does not know, with no citation."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot. Must cost nothing."""


class FencedCache(Protocol):
    """Values per tenant, fenced by document writes. Raises ``CacheUnavailableError`` where it says so.

    The promise: a value is ``current`` only while no write of that tenant has begun since the fence that it was
    stored under was read, on this replica and on every other.
    """

    def peek(self, tenant: str, key: Key) -> Cached | None:
        """A current value that may be served right now without asking anybody. None tells nothing."""

    async def lookup(self, tenant: str, key: Key, beside: Key | None = None) -> Lookup:
        """The value, if any, and the current fence; take it *before* retrieval. One round trip at most.

        Where the value is not current, what lies under ``beside`` comes with it. Never raises: with the shared level
        away the fence is None.
        """

    def ask(self, tenant: str, key: Key, beside: Key | None, deliver: Callable[[Lookup], None]) -> bool:
        """``lookup`` for who cannot wait: ``deliver`` is called once, later. False when it must be awaited instead."""

    async def store(self, tenant: str, *fills: Fill, fence: Fence | None) -> bool:
        """Store them in one step if the fence still holds; whether all are.

        Not when a write came between; one that was disowned is left out. Without a fence they are kept in this process
        only, where nothing but its evidence can make one valid. Never raises: with the shared level away nothing is
        stored there and the answer is False.
        """

    def afterwards(self, tenant: str, key: Key) -> AbstractAsyncContextManager[None]:
        """Hold this around storing what somebody is about to be told: he is told first, where storing takes time.

        Who looks for it in this process meanwhile waits until it is stored.
        """

    async def settled(self, tenant: str) -> None:
        """Return when everything is stored that this process had begun to store."""

    def writing(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Hold this around a write of documents: values from before, and fills that began before its end, stop
        being current, on every replica.

        Entering raises when the invalidation cannot be recorded; then the write must not happen. A holder that
        crashes is cleaned up after.
        """

    async def drop(self, tenant: str, selector: Selector) -> int:
        """Remove entries from every level of every replica; how many the shared level had. Raises."""

    async def disown(self, tenant: str, key: Key) -> bool:
        """Remove the answer and remember its ``mark``: it is never stored again. False when there is none. Raises."""

    def disowned(self, tenant: str, mark: str) -> bool:
        """Whether an answer with this ``mark`` was disowned, as far as the last look-up of the tenant told."""

    async def entries(self, tenant: str, *, since: float = 0.0, limit: int = 1000) -> Sequence[EntryNote]:
        """Stored answers in the order of their time, from ``since`` (inclusive) on. Raises."""

    async def tally(self, tenant: str, asked: Mapping[bytes, int]) -> None:
        """Count requests (``About.request``) for ``most_asked``; the least asked ones are forgotten. Raises."""

    async def most_asked(self, tenant: str, limit: int) -> Sequence[tuple[bytes, int]]:
        """Requests and how often they were asked, most asked first. Raises."""

    async def statistics(self, tenant: str) -> Sequence[LevelStatistics]:
        """By level and kind. Raises."""

    async def ping(self) -> None:
        """Return when it can serve, raise when it cannot."""


class ValueCache(Protocol):
    """Values that depend on no document (embeddings), per tenant. Never raises: a value that cannot be had is None."""

    async def get(self, tenant: str, digest: str) -> bytes | None:
        """The value, if it is there and its TTL is not over."""

    async def put(self, tenant: str, digest: str, value: bytes, ttl_seconds: float) -> None:
        """Keep it if that is possible."""


class Flights(Protocol):
    """One computation for all who ask the same, over all replicas."""

    async def once(
        self,
        tenant: str,
        flight: str,
        compute: Callable[[], Awaitable[bytes]],
        *,
        settle: Callable[[], Awaitable[None]] | None = None,
        looked_seconds: float = 0.0,
        looked_at: int | None = None,
    ) -> tuple[bytes, bool]:
        """The result of one ``compute()``, and whether it was ours.

        ``compute`` may begin before it is known that it will be ours: whatever costs something there waits for
        ``go_ahead.given()``, which raises ``CancelledError`` when it is not.

        ``settle`` runs after our ``compute()`` and leaves the result where those who come later look for it. Nobody here
        need wait for that; over all replicas the flight is over only then, so that nobody computes it again in between.

        ``flight`` names everything the result depends on, so that nobody gets one from before a write that had ended
        when he asked. Who looked for the result elsewhere since ``looked_seconds`` ago also gets one that was finished
        meanwhile; ``looked_at`` (``Lookup.at``) tells the shared level when that was, however long it takes to ask it.

        ``compute`` must not raise what others have to know: it returns an encoded error. A leader that dies is replaced
        by one waiter when its lease is over; a caller that is cancelled leaves the computation to the others and ends it
        when there are none. With the shared level away, one computation per process.
        """


class Proposals(Protocol):
    """Answers to paraphrases of a question. Never raises: what cannot be judged is not proposed."""

    async def propose(self, asked: Asked) -> Proposal | None:
        """One that passed every gate, or None: then the question is answered by itself."""

    async def recall(
        self, tenant: str, key: Key, generate: Callable[[], Awaitable[bytes | None]]
    ) -> Proposal | None:
        """One that was proposed for this key before, if nothing has changed since; costs nothing for other keys.

        ``generate`` makes the value of an answer of its own from what is retrieved then; None when that can tell nothing.
        """


class Verifier(Protocol):
    """A second opinion on two questions. Never raises: what cannot be asked is not the same."""

    async def same(self, asked: str, cached: str) -> bool:
        """Whether an answer to the one answers the other."""


class AuditBook(Protocol):
    """One small record for a tenant and a name, shared by all replicas. Raises ``CacheUnavailableError``."""

    async def read(self, tenant: str, name: str) -> bytes | None:
        """What is there."""

    async def replace(
        self, tenant: str, name: str, old: bytes | None, new: bytes
    ) -> tuple[bool, bytes | None]:
        """Put ``new`` in the place of ``old`` (None: of nothing) in one step.

        Whether that was done, and what is there then. When it raises, it may have been done all the same.
        """


class CountBoard(Protocol):
    """Sums of what all replicas counted. Raises ``CacheUnavailableError``."""

    async def add(self, replica: str, number: int, counts: Mapping[str, int], *, last: bool = False) -> None:
        """Add what a replica counted since its ``number`` before; the same number twice counts once.

        ``last``: the replica ends. Others count as replicas until they were not heard of for ``HEARD_SECONDS``.
        """

    async def read(self) -> Totals:
        """What was added."""


class SourceBoard(Protocol):
    """Progress of sources, visible to every replica. Raises ``CacheUnavailableError``."""

    async def publish(self, status: SourceStatus) -> None:
        """Replace what is known of that source."""

    async def read(self) -> Mapping[str, SourceStatus]:
        """By name."""
