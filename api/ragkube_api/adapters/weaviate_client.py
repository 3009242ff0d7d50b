"""One Weaviate connection that is made when it is needed, checks its collections and heals by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
import httpx
import structlog
import weaviate
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.collections.collection.async_ import CollectionAsync
from weaviate.connect import v4
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateBaseError

from ragkube_api.adapters import weaviate_schema as schema
from ragkube_api.errors import StorageFullError, StoreUnavailableError
from ragkube_api.settings import WeaviateStore as WeaviateSettings

log = structlog.get_logger(__name__)
T = TypeVar("T")
_EXISTS = 422
_KEY_SECONDS = 1.0


class RefusedError(Exception):
    """The server took a request and did not do all of it."""


class TenantUnknownError(Exception):
    """Nothing was ever written for this tenant."""


_FAILURES = (WeaviateBaseError, grpc.RpcError, httpx.HTTPError, OSError, TimeoutError, RefusedError)


class WeaviateConnection:
    """Gives collections; every failure inside ``using()`` becomes an error of the port."""

    def __init__(self, settings: WeaviateSettings, dimensions: int) -> None:
        self._settings = settings
        self._dimensions = dimensions
        self._lock = asyncio.Lock()
        self._client: weaviate.WeaviateAsyncClient | None = None
        self._key: str | None = None
        self._checked = False
        self._suspect = False
        self._failing = False
        self._read: str | None = None
        self._read_again = 0.0
        self._retired: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def using(self) -> AsyncIterator[Collections]:
        """The collections, created where they are missing."""
        try:
            yield await self._collections()
            self._failing = False
        except _FAILURES as error:
            raise self._translated(error) from error

    async def close(self) -> None:
        """Close every connection."""
        for task in list(self._retired):
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def _translated(self, error: BaseException) -> Exception:
        detail = str(error)
        if "tenant not found" in detail:
            return TenantUnknownError()
        self._checked = False  # the server may have lost its collections
        self._suspect = True
        write = log.debug if self._failing else log.warning  # one line an outage, not one a request
        self._failing = True
        write("weaviate.failed", error=type(error).__name__, detail=detail[:500])
        if "read-only" in detail.lower() or "no space left" in detail:
            return StorageFullError("The document store has no room left.")
        return StoreUnavailableError("The document store does not answer.", retry_after=2)

    async def _collections(self) -> Collections:
        key = await self._read_key()
        if self._client is None or not self._checked or key != self._key:
            async with self._lock:
                await self._connect(key)
        assert self._client is not None  # noqa: S101  for the type checker
        return Collections(self._client, self._settings.collection_prefix)

    async def _read_key(self) -> str | None:
        file = self._settings.api_key_file
        now = time.monotonic()
        if file is not None and now >= self._read_again:
            self._read = (await asyncio.to_thread(file.read_text)).strip()
            self._read_again = now + _KEY_SECONDS
        return self._read

    async def _connect(self, key: str | None) -> None:
        if self._client is not None and (key != self._key or self._suspect):
            # gRPC waits up to two minutes before it tries an address again: a new channel does not
            self._retire(self._client)
            self._client = None
        if self._client is None:
            self._client = await self._connected(key)
            self._key, self._checked, self._suspect = key, False, False
        if not self._checked:
            await self._check_collections(self._client)
            self._checked = True

    async def _connected(self, key: str | None) -> weaviate.WeaviateAsyncClient:
        client = self._new_client(key)
        try:
            await client.connect()
        except BaseException:
            await client.close()
            raise
        return client

    def _new_client(self, key: str | None) -> weaviate.WeaviateAsyncClient:
        settings = self._settings
        limit = settings.timeout_seconds
        return weaviate.use_async_with_custom(
            settings.http_host, settings.http_port, settings.secure,
            settings.grpc_host, settings.grpc_port, settings.secure,
            auth_credentials=Auth.api_key(key) if key else None,
            additional_config=AdditionalConfig(timeout=Timeout(init=limit, query=limit, insert=2 * limit)),
            skip_init_checks=True,
        )  # fmt: skip

    def _retire(self, client: weaviate.WeaviateAsyncClient) -> None:
        """Close it when what is under way on it has had its time."""

        async def later() -> None:
            try:
                await asyncio.sleep(2 * self._settings.timeout_seconds)
            finally:
                await client.close()

        task = asyncio.create_task(later(), name="weaviate-retire")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _check_collections(self, client: weaviate.WeaviateAsyncClient) -> None:
        wanted = schema.definitions(
            self._settings.collection_prefix, self._dimensions, self._settings.replication_factor
        )
        for definition in wanted:
            found = await self._description(client, definition)
            if found != definition["description"]:
                log.error("weaviate.other_schema", collection=definition["name"], found=found)
                raise StoreUnavailableError(
                    f"The collection {definition['name']} was made for another configuration "
                    f"({found}; needed: {definition['description']}). "
                    "Choose another collection prefix, or delete it and index again."
                )

    async def _description(
        self, client: weaviate.WeaviateAsyncClient, definition: dict[str, Any]
    ) -> str | None:
        name = definition["name"]
        if not await client.collections.exists(name):
            try:
                await client.collections.create(**definition)
            except UnexpectedStatusCodeError as error:
                if error.status_code != _EXISTS:  # another replica was faster
                    raise
        return (await client.collections.get(name).config.get(simple=True)).description


class Collections:
    """The three collections of one deployment."""

    def __init__(self, client: weaviate.WeaviateAsyncClient, prefix: str) -> None:
        self.client = client
        self._prefix = prefix

    def documents(self, tenant: str) -> CollectionAsync[Any, Any]:
        """One object a document."""
        return self._of("Document", tenant)

    def texts(self, tenant: str) -> CollectionAsync[Any, Any]:
        """One object a version."""
        return self._of("Text", tenant)

    def chunks(self, tenant: str) -> CollectionAsync[Any, Any]:
        """Passages with vectors."""
        return self._of("Chunk", tenant)

    async def tenants(self) -> list[str]:
        """Every tenant that has ever written."""
        found = await self.client.collections.get(f"{self._prefix}Chunk").tenants.get()
        return sorted(found)

    def _of(self, kind: str, tenant: str) -> CollectionAsync[Any, Any]:
        return self.client.collections.get(f"{self._prefix}{kind}").with_tenant(tenant)


class _BriefRetry:
    """In place of the client's own patience: it tries an unreachable server again for 63 seconds."""

    def __init__(self, n: float = 4) -> None:
        self._pauses = (0.1, 0.4) if n else ()

    async def awith_exponential_backoff(
        self, count: int, error: str, f: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any
    ) -> T:
        """Same signature as the client's; ``count`` and ``error`` are its own book-keeping."""
        del count, error
        for pause in self._pauses:
            try:
                return await f(*args, **kwargs)
            except grpc.RpcError as failure:
                if failure.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(pause)
        return await f(*args, **kwargs)


@asynccontextmanager
async def open_connection(settings: WeaviateSettings, dimensions: int) -> AsyncIterator[WeaviateConnection]:
    """A connection that starts whether or not the server is there."""
    v4._Retry = _BriefRetry  # type: ignore[attr-defined,assignment]  # noqa: SLF001  there is no option for it
    connection = WeaviateConnection(settings, dimensions)
    try:
        yield connection
    finally:
        await connection.close()
