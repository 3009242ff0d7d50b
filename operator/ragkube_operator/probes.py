"""Asks external services for life, from the operator: an address and a protocol, no knowledge of the spec."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from ragkube_operator.errors import RedisAuthError, RedisError
from ragkube_operator.redis_client import Access, Endpoint, ping
from ragkube_operator.status import Part, Reason

_TIMEOUT = aiohttp.ClientTimeout(total=4)


@dataclass(frozen=True)
class WeaviateAddress:
    """Where an external Weaviate listens."""

    http_host: str
    http_port: int
    grpc_host: str
    grpc_port: int
    secure: bool
    api_key: str | None


async def redis(nodes: Sequence[str], access: Access) -> Part:
    """Whether any of the nodes lets us in."""
    trouble: list[str] = []
    for node in nodes:
        host, _, port = node.rpartition(":")
        try:
            await ping(Endpoint(node, host.strip("[]"), int(port)), access)
        except RedisAuthError as error:
            return Part(
                False,
                Reason.AUTHENTICATION_FAILED,
                f"{error}: check username and passwordSecretRef of spec.cache.redis.external",
            )
        except RedisError as error:
            trouble.append(str(error))
        else:
            return Part(True, Reason.REACHABLE, f"External Redis answers at {node}")
    return Part(
        False,
        Reason.UNREACHABLE,
        f"No node of the external Redis answers ({'; '.join(trouble)}): check spec.cache.redis.external.nodes, "
        "the network between the cluster and it, and whether it runs; questions are answered without cache",
    )


async def weaviate(address: WeaviateAddress) -> Part:
    """Whether REST answers with our key and gRPC accepts connections."""
    scheme = "https" if address.secure else "http"
    url = f"{scheme}://{_bracketed(address.http_host)}:{address.http_port}/v1/meta"
    headers = {"Authorization": f"Bearer {address.api_key}"} if address.api_key else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(url, headers=headers) as answer,
        ):
            status = answer.status
        await _connects(address.grpc_host, address.grpc_port)
    except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
        return _unreachable(f"{url} and gRPC {address.grpc_host}:{address.grpc_port}", error)
    if status in {401, 403}:
        return Part(
            False,
            Reason.AUTHENTICATION_FAILED,
            f"External Weaviate at {url} answers {status}: "
            "check apiKeySecretRef of spec.vectorStore.weaviate.external",
        )
    if status != 200:
        return _unreachable(url, OSError(f"it answers {status}"))
    return Part(True, Reason.REACHABLE, f"External Weaviate answers at {url}")


async def prometheus(url: str, query: str) -> Part:
    """Whether Prometheus answers, and knows the series that ``query`` counts."""
    field = "spec.monitoring.external.prometheusUrl"
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(f"{url.rstrip('/')}/api/v1/query", params={"query": query}) as answer,
        ):
            body = await answer.json(content_type=None) if answer.status == 200 else None
            status = answer.status
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        detail = str(error) or type(error).__name__
        return Part(False, Reason.UNREACHABLE, f"No Prometheus answers at {url} ({detail}): check {field}")
    found = _result(body)
    if found is None:
        return Part(False, Reason.UNREACHABLE, f"{url} answers {status}, not as a Prometheus: check {field}")
    if not found:
        return Part(
            False,
            Reason.NOT_SCRAPED,
            f"Prometheus at {url} has no series of this deployment: set external.labels to what its "
            "podMonitorSelector and ruleSelector ask for, and let it select this namespace",
        )
    return Part(True, Reason.REACHABLE, f"Prometheus at {url} scrapes this deployment")


def _result(body: Any) -> list[Any] | None:
    """What a Prometheus has found; None when it is not the answer of one."""
    data = body.get("data") if isinstance(body, dict) and body.get("status") == "success" else None
    found = data.get("result") if isinstance(data, dict) else None
    return found if isinstance(found, list) else None


def _unreachable(where: str, error: BaseException) -> Part:
    detail = str(error) or type(error).__name__
    return Part(
        False,
        Reason.UNREACHABLE,
        f"External Weaviate does not answer at {where} ({detail}): check spec.vectorStore.weaviate.external, "
        "the network between the cluster and it, and whether it runs",
    )


async def _connects(host: str, port: int) -> None:
    async with asyncio.timeout(3):
        _, writer = await asyncio.open_connection(host, port)
    writer.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
