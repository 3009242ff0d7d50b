"""Documents in a directory that one process owns: SQLite for rows and words, memory for exact vectors.

One thread writes: what waits is written in one transaction, so many writers share the cost of a sync to disk.
Readers see the state between two transactions, in rows and vectors alike.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import structlog

from ragkube_api.adapters import embedded_store_files as files
from ragkube_api.adapters import embedded_store_rows as rows
from ragkube_api.adapters import embedded_store_words as words
from ragkube_api.adapters.embedded_store_vectors import Snapshot, TenantVectors
from ragkube_api.domain import Document, DocumentPage, DocumentWrite, Passage, SearchQuery
from ragkube_api.errors import RagkubeError, StartupError, StoreUnavailableError
from ragkube_api.text import fusion
from ragkube_api.text.analysis import query_terms

T = TypeVar("T")
Publish: TypeAlias = Callable[[], None]
"""Brings the vectors in memory up to what was committed."""
Work: TypeAlias = Callable[[sqlite3.Connection], tuple[Any, Publish | None]]

_READERS = 2
_GROUP = 64
_CANDIDATES = 200
_CLOSED = "the document store is closed"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work
    done: Future[Any]


Jobs: TypeAlias = list[_Job]
Finished: TypeAlias = list[tuple[_Job, Any, Publish | None]]


class EmbeddedStore:
    """A ``VectorStore`` in a directory. Made by ``open_embedded_store``."""

    def __init__(self, path: Path, *, dimensions: int, embedder: str) -> None:
        self._path = path
        self._dimensions = dimensions
        self._embedder = embedder
        self._vectors: dict[str, TenantVectors] = {}
        self._frequencies: dict[int, words.Frequencies] = {}
        # held while a commit is published, and while a reader fixes what it sees
        self._moment = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")
        self._writer = threading.Thread(target=self._write_all, name="store-write", daemon=True)

    def start(self) -> None:
        """Read the vectors and begin to take writes."""
        with closing(files.connect(self._path)) as connection:
            loaded = rows.stored_vectors(connection, self._embedder, self._dimensions)
            for tenant, key, chunks, vectors in loaded:
                if len(chunks) == len(vectors):
                    self._tenant_vectors(tenant).add(key, chunks, vectors)
            others = rows.count_of_other_embedders(connection, self._embedder, self._dimensions)
        if others:
            _log.warning("store.documents_of_another_embedder", documents=others, embedder=self._embedder)
        self._writer.start()

    def close(self) -> None:
        """Finish what waits, then let go of the files."""
        if self._writer.is_alive():
            self._jobs.put(None)
            self._writer.join()
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()
        with suppress(sqlite3.Error), closing(files.connect(self._path)) as connection:
            connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            )  # only tidies up: a full disk is no reason to fail

    # what the port asks for

    async def put(self, write: DocumentWrite) -> None:
        """Add or replace a document; on return it is on disk and every later search sees it."""
        if write.vectors.shape != (len(write.chunks), self._dimensions):
            msg = f"expected {len(write.chunks)} vectors of {self._dimensions} dimensions, got {write.vectors.shape}"
            raise ValueError(msg)
        await self._write(lambda connection: self._put(connection, write))

    async def get(self, tenant: str, document_id: str) -> Document | None:
        """The document's description, or None."""
        return await self._read(lambda connection: rows.select(connection, tenant, document_id))

    async def text(self, tenant: str, document_id: str) -> tuple[Document, str] | None:
        """The document with its stored text, or None."""
        return await self._read(lambda connection: rows.select_text(connection, tenant, document_id))

    async def delete(self, tenant: str, document_id: str) -> bool:
        """Remove it; False when there was none."""
        return bool(await self._write(lambda connection: self._delete(connection, tenant, document_id)))

    async def list(
        self, tenant: str, *, cursor: str | None, limit: int, source: str | None = None
    ) -> DocumentPage:
        """Documents in the order of their ids; the cursor is the last id of the page before."""
        found = await self._read(
            lambda connection: rows.page(
                connection, tenant, after=cursor or "", limit=limit + 1, source=source
            )
        )
        more = len(found) > limit
        return DocumentPage(found[:limit], found[limit - 1].id if more else None)

    async def count(self, tenant: str) -> int:
        """Number of documents."""
        return await self._read(lambda connection: rows.count(connection, tenant))

    async def search(self, tenant: str, query: SearchQuery) -> Sequence[Passage]:
        """The best passages by BM25 and cosine, fused."""
        return await self._in_reader(lambda: self._search(tenant, query))

    async def ping(self) -> None:
        """Raise when the files cannot be read or the writer has gone."""
        await self._read(lambda connection: connection.execute("SELECT 1 FROM tenants LIMIT 1").fetchone())

    # reading

    def _search(self, tenant: str, query: SearchQuery) -> Sequence[Passage]:
        connection = self._connection()
        with self._moment:
            connection.execute("BEGIN")
            number = rows.tenant_id(connection, tenant)  # the first read fixes what this transaction sees
            vectors = self._vectors.get(tenant)
            snapshot = vectors.snapshot() if vectors else None
        try:
            return [] if number is None else self._ranked(connection, number, snapshot, query)
        finally:
            connection.execute("COMMIT")

    def _ranked(
        self, connection: sqlite3.Connection, tenant: int, snapshot: Snapshot | None, query: SearchQuery
    ) -> Sequence[Passage]:
        documents = rows.matching(connection, tenant, query.filters) if query.filters else None
        if documents is not None and not len(documents):
            return []
        limit = max(_CANDIDATES, 10 * query.k)
        said: dict[int, float] = {}
        near: dict[int, float] = {}
        if query.alpha < 1:
            passages = len(snapshot.chunks) if snapshot else 0
            frequencies = self._frequencies.setdefault(tenant, words.Frequencies())
            terms = frequencies.telling(connection, tenant, query_terms(query.text), passages)
            said = words.best_words(connection, tenant, terms, limit, documents)
        if query.alpha > 0 and snapshot is not None and query.vector.shape == (self._dimensions,):
            near = snapshot.nearest(query.vector, limit, documents=documents, besides=said)
        best = fusion.fuse(said, near, alpha=query.alpha, k=query.k)
        found = rows.passages(connection, [number for number, _ in best])
        return [
            Passage(document, version, title, chunk, score)
            for number, score in best
            for document, version, title, chunk in [found[number]]
        ]

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = files.connect(self._path)
            self._connections.append(connection)
        return connection

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._in_reader(lambda: work(self._connection()))

    async def _in_reader(self, work: Callable[[], T]) -> T:
        if not self._writer.is_alive():
            raise StoreUnavailableError(_CLOSED)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)
        except sqlite3.Error as error:
            raise files.translate(error, self._path) from error

    # writing

    def _put(self, connection: sqlite3.Connection, write: DocumentWrite) -> tuple[None, Publish]:
        tenant = rows.create_tenant(connection, write.document.tenant)
        old = rows.document_key(connection, tenant, write.document.id)
        if old is not None:
            rows.delete(connection, tenant, old)
        key, chunks = rows.insert(connection, tenant, write, self._embedder)

        def publish() -> None:
            vectors = self._tenant_vectors(write.document.tenant)
            if old is not None:
                vectors.remove(old)
            vectors.add(key, chunks, write.vectors)

        return None, publish

    def _delete(
        self, connection: sqlite3.Connection, tenant: str, document_id: str
    ) -> tuple[bool, Publish | None]:
        number = rows.tenant_id(connection, tenant)
        key = None if number is None else rows.document_key(connection, number, document_id)
        if number is None or key is None:
            return False, None
        rows.delete(connection, number, key)
        return True, lambda: self._tenant_vectors(tenant).remove(key)

    def _tenant_vectors(self, tenant: str) -> TenantVectors:
        return self._vectors.setdefault(tenant, TenantVectors(self._dimensions))

    async def _write(self, work: Work) -> Any:
        if not self._writer.is_alive():
            raise StoreUnavailableError(_CLOSED)
        done: Future[Any] = Future()
        done.set_running_or_notify_cancel()  # from here on it cannot be cancelled: the write will happen
        self._jobs.put(_Job(work, done))
        return await asyncio.shield(asyncio.wrap_future(done))

    def _write_all(self) -> None:
        try:
            with closing(files.connect(self._path)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                ending = False
                while not ending:
                    group, ending = self._next_group()
                    if group:
                        self._write_group(connection, group)
        finally:
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        """Nobody will write them any more."""
        while not self._jobs.empty():
            if (job := self._jobs.get()) is not None:
                job.done.set_exception(StoreUnavailableError(_CLOSED))

    def _next_group(self) -> tuple[Jobs, bool]:
        group: Jobs = []
        while len(group) < _GROUP:
            try:
                job = self._jobs.get(block=not group)
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
        return group, False

    def _write_group(self, connection: sqlite3.Connection, group: Jobs) -> None:
        finished: Finished = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                if (outcome := self._write_one(connection, job)) is not None:
                    finished += [(job, *outcome)]
            with self._moment:
                connection.execute("COMMIT")
                for _, _, publish in finished:
                    if publish:
                        publish()
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            problem = files.translate(error, self._path)
            _log.warning("store.write_failed", error=str(error), writes=len(group))
            self._fail(group, problem)
            return
        except BaseException:  # memory and disk may disagree now: end here, a restart reads them anew
            self._fail(group, StoreUnavailableError(_CLOSED))
            raise
        for job, result, _ in finished:
            job.done.set_result(result)

    @staticmethod
    def _write_one(connection: sqlite3.Connection, job: _Job) -> tuple[Any, Publish | None] | None:
        connection.execute("SAVEPOINT one")
        try:
            outcome = job.work(connection)
        except sqlite3.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001  handed to the one who asked; the others' writes go on
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
            job.done.set_exception(error)
            return None
        connection.execute("RELEASE one")
        return outcome

    @staticmethod
    def _fail(jobs: Sequence[_Job], problem: RagkubeError) -> None:
        for job in jobs:
            if not job.done.done():
                job.done.set_exception(type(problem)(problem.message))


@asynccontextmanager
async def open_embedded_store(
    path: Path, *, dimensions: int, embedder: str = ""
) -> AsyncIterator[EmbeddedStore]:
    """Own the directory for as long as the context lasts.

    ``embedder`` names the model: vectors that another one has made are kept, but not searched, until their
    documents are put again (their words are found all the while).

    Raises:
        StartupError: another process owns it, or it is damaged, read-only or full.
    """
    with ExitStack() as stack:
        store = await asyncio.to_thread(_open, stack, path, dimensions, embedder)
        try:
            yield store
        finally:
            await asyncio.to_thread(store.close)


def _open(stack: ExitStack, path: Path, dimensions: int, embedder: str) -> EmbeddedStore:
    stack.enter_context(files.directory_lock(path))
    files.prepare(path)
    store = EmbeddedStore(path, dimensions=dimensions, embedder=embedder)
    try:
        store.start()
    except sqlite3.Error as error:
        raise StartupError(files.translate(error, path).message) from error
    return store
