"""Keeps configured directories in the index: adds, replaces, removes, and says what could not be indexed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragkube_api.domain import Document, SourceStatus
from ragkube_api.errors import (
    CacheUnavailableError,
    ConflictError,
    DeadlineExceededError,
    DependencyUnavailableError,
    DocumentError,
    NotFoundError,
    RagkubeError,
    StorageFullError,
    UnsupportedDocumentError,
)
from ragkube_api.ports import SourceBoard, VectorStore
from ragkube_api.services.document_ids import problem_with_id
from ragkube_api.services.ingestion import Ingestion, Upload, too_large
from ragkube_api.services.scan import Scan, scan, unreadable
from ragkube_api.settings import DirectorySource
from ragkube_api.telemetry import Telemetry
from ragkube_api.text import parsing

_PAGE = 500
_PARALLEL_FILES = 4
_PUBLISH_EVERY_SECONDS = 0.2
_RETRY_FIRST_SECONDS = 1.0
_RETRY_LAST_SECONDS = 30.0


class SourceSync:
    """Synchronises all configured sources side by side, a few files of each at a time."""

    def __init__(
        self,
        sources: Sequence[DirectorySource],
        *,
        store: VectorStore,
        ingestion: Ingestion,
        board: SourceBoard,
        telemetry: Telemetry,
    ) -> None:
        self._sources = sources
        self._store = store
        self._ingestion = ingestion
        self._board = board
        self._telemetry = telemetry

    async def run(self) -> None:
        """Keep every source up to date until cancelled; ends when none has an interval and all are done."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._keep(source))

    async def statuses(self, tenant: str | None = None) -> Sequence[SourceStatus]:
        """What is known of every configured source (of one tenant); pending where nothing was published yet."""
        known = await self._board.read()
        shown = [s for s in self._sources if tenant in {None, s.tenant}]
        return [known.get(s.name, SourceStatus(s.name, "pending")) for s in shown]

    async def sync(self, source: DirectorySource) -> SourceStatus:
        """One pass; a missing dependency ends it with state 'failed' and nothing lost."""
        progress = _Progress(source.name)
        await self._publish(progress, "syncing", force=True)
        problem = await self._attempt(source, progress)
        if problem is not None:
            return await self._give_up(progress, problem)
        self._telemetry.log.info(
            "source_synced", source=source.name, total=progress.total, indexed=progress.indexed,
            unchanged=progress.unchanged, deleted=progress.deleted, failed=len(progress.failures),
        )  # fmt: skip
        return await self._publish(progress, "synced", force=True)

    async def _keep(self, source: DirectorySource) -> None:
        delay = _RETRY_FIRST_SECONDS
        while True:
            status = await self.sync(source)
            if status.state == "failed":
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_LAST_SECONDS)
            elif source.interval_seconds is None:
                return
            else:
                delay = _RETRY_FIRST_SECONDS
                await asyncio.sleep(source.interval_seconds)

    async def _attempt(self, source: DirectorySource, progress: _Progress) -> str | None:
        problem: str | None = None
        try:
            await self._pass(source, progress)
        except* OSError as group:
            problem = _root_problem(source, _first(group))
        except* (DependencyUnavailableError, StorageFullError) as group:
            problem = _message(_first(group))
        return problem

    async def _pass(self, source: DirectorySource, progress: _Progress) -> None:
        found = await asyncio.to_thread(scan, source.path, source.include)
        progress.total = len(found.files) + len(found.failures)
        for path, (code, detail) in found.failures.items():
            self._fail(progress, path, code, detail)
        known = {document.id: document async for document in self._known(source)}
        await self._remove_gone(source, found, known, progress)
        files = iter(found.files.items())

        async def work() -> None:
            for path, size in files:
                await self._file(source, path, size, known.get(path), progress)
                await self._publish(progress, "syncing")

        async with asyncio.TaskGroup() as group:
            for _ in range(_PARALLEL_FILES):
                group.create_task(work())

    async def _known(self, source: DirectorySource) -> AsyncIterator[Document]:
        cursor: str | None = None
        while True:
            page = await self._store.list(source.tenant, cursor=cursor, limit=_PAGE, source=source.name)
            for document in page.documents:
                yield document
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _remove_gone(
        self, source: DirectorySource, found: Scan, known: Mapping[str, Document], progress: _Progress
    ) -> None:
        for document_id in known:
            if found.may_hold(document_id):
                continue
            try:
                await self._ingestion.delete(source.tenant, document_id, source=source.name)
            except NotFoundError:
                continue
            progress.deleted += 1
            await self._publish(progress, "syncing")

    async def _file(
        self, source: DirectorySource, path: str, size: int, known: Document | None, progress: _Progress
    ) -> None:
        try:
            upload = await self._read(source, path, size)
            if known is not None and known.fingerprint == self._ingestion.fingerprint(upload):
                progress.unchanged += 1
            else:
                stored = await self._ingestion.put(upload)
                progress.count(stored.outcome)
        except OSError as error:
            self._fail(progress, path, *unreadable(error))
        except (DocumentError, ConflictError, DeadlineExceededError) as error:
            self._fail(progress, path, error.code, error.message)
        progress.done += 1

    async def _read(self, source: DirectorySource, path: str, size: int) -> Upload:
        problem = problem_with_id(path)
        if problem is not None:
            raise DocumentError(f"The path cannot be a document id: {problem}.")
        content_type = parsing.content_type_for(path)
        if content_type is None:
            raise UnsupportedDocumentError("Files of this type are not read.")
        limit = self._ingestion.max_bytes
        if size > limit:
            raise too_large(limit)
        body = await asyncio.to_thread(_read_at_most, source.path / path, limit)
        return Upload(source.tenant, path, body, content_type, source=source.name)

    def _fail(self, progress: _Progress, path: str, code: str, detail: str) -> None:
        progress.failures[path] = (code, detail)
        self._telemetry.log.warning(
            "source_file_failed", source=progress.name, path=path, code=code, detail=detail
        )

    async def _give_up(self, progress: _Progress, detail: str) -> SourceStatus:
        self._telemetry.log.error("source_failed", source=progress.name, detail=detail)
        progress.detail = detail
        return await self._publish(progress, "failed", force=True)

    async def _publish(self, progress: _Progress, state: str, *, force: bool = False) -> SourceStatus:
        status = progress.status(state)
        if not force and not progress.due():
            return status
        try:
            await self._board.publish(status)
        except CacheUnavailableError as error:
            self._telemetry.log.warning("source_board_unavailable", source=status.name, cause=error.message)
        return status


@dataclass(slots=True)
class _Progress:
    """Counts of one pass."""

    name: str
    total: int = 0
    done: int = 0
    indexed: int = 0
    unchanged: int = 0
    deleted: int = 0
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    detail: str | None = None
    published: float = 0.0

    def count(self, outcome: str) -> None:
        if outcome == "unchanged":
            self.unchanged += 1
        else:
            self.indexed += 1

    def due(self) -> bool:
        now = time.monotonic()
        if now - self.published < _PUBLISH_EVERY_SECONDS:
            return False
        self.published = now
        return True

    def status(self, state: str) -> SourceStatus:
        return SourceStatus(
            name=self.name, state=state, total=self.total, done=self.done, indexed=self.indexed,  # type: ignore[arg-type]
            unchanged=self.unchanged, deleted=self.deleted, failures=dict(self.failures), detail=self.detail,
        )  # fmt: skip


def _read_at_most(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        body = file.read(limit + 1)
    if len(body) > limit:
        raise too_large(limit)
    return body


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _message(error: BaseException) -> str:
    return error.message if isinstance(error, RagkubeError) else type(error).__name__


def _root_problem(source: DirectorySource, error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return f"The directory {source.path} cannot be read: {reason or 'unknown error'}."
