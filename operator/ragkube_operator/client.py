"""The HTTP API as the ``ragkube`` command uses it: every failure is a sentence."""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx2

from ragkube_operator.cli_output import FAILED, USAGE, CliError

JSON = dict[str, Any]


class ApiError(CliError):
    """The API answered with an error (problem+json)."""

    def __init__(self, status: int, code: str, message: str, details: tuple[str, ...]) -> None:
        super().__init__(message, details=details)
        self.status = status
        self.code = code


class UnreachableError(CliError):
    """Nothing answers at the URL."""


class Client:
    """One connection pool to one API."""

    def __init__(self, url: str, *, api_key: str | None = None, tenant: str | None = None) -> None:
        self._api_key = api_key
        self.url = _checked(url)
        headers = {"User-Agent": "ragkube-cli"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        if tenant:
            headers["X-Ragkube-Tenant"] = tenant
        timeout = httpx2.Timeout(120, connect=5)
        # A proxy of the environment must not stand between this machine and itself.
        self._http = httpx2.Client(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=not _is_loopback(self.url)
        )

    def for_tenant(self, tenant: str) -> Client:
        """The same API with the same key, for another tenant's documents."""
        return Client(self.url, api_key=self._api_key, tenant=tenant)

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def query(self, body: JSON) -> JSON:
        """``POST /v1/query``."""
        return self._json("POST", "/v1/query", json=body)

    def put_document(self, document_id: str, body: bytes, content_type: str, metadata: JSON) -> JSON:
        """``PUT /v1/documents/{id}``."""
        headers = {"Content-Type": content_type}
        if metadata:
            headers["X-Ragkube-Metadata"] = json.dumps(metadata)
        return self._json("PUT", _path(document_id), content=body, headers=headers)

    def document(self, document_id: str) -> JSON:
        """``GET /v1/documents/{id}``."""
        return self._json("GET", _path(document_id))

    def content(self, document_id: str) -> str:
        """``GET /v1/documents/{id}/content``."""
        return self._send("GET", f"{_path(document_id)}/content").text

    def delete_document(self, document_id: str) -> None:
        """``DELETE /v1/documents/{id}``."""
        self._send("DELETE", _path(document_id))

    def documents(self, *, page: int = 1000) -> Iterator[JSON]:
        """Every document, in order of its id."""
        return self._pages("/v1/documents", "documents", page)

    def cache(self) -> JSON:
        """``GET /v1/cache``."""
        return self._json("GET", "/v1/cache")

    def clear_cache(self, conditions: Mapping[str, str]) -> int:
        """``DELETE /v1/cache``: how many values were removed."""
        return int(self._json("DELETE", "/v1/cache", params=dict(conditions))["removed"])

    def cached_answers(self, limit: int) -> Iterator[JSON]:
        """``GET /v1/cache/answers``: so many at most, oldest first."""
        return itertools.islice(self._pages("/v1/cache/answers", "answers", min(limit, 1000)), limit)

    def cached_answer(self, answer_id: str) -> JSON:
        """``GET /v1/cache/answers/{id}``."""
        return self._json("GET", f"/v1/cache/answers/{quote(answer_id, safe='')}")

    def disown(self, answer_id: str) -> None:
        """``DELETE /v1/cache/answers/{id}``."""
        self._send("DELETE", f"/v1/cache/answers/{quote(answer_id, safe='')}")

    def most_asked(self, limit: int) -> list[JSON]:
        """``GET /v1/cache/questions``."""
        found: list[JSON] = self._json("GET", "/v1/cache/questions", params={"limit": limit})["questions"]
        return found

    def warm(self, body: JSON) -> Iterator[JSON]:
        """``POST /v1/cache/warm``: each line as it comes."""
        with self._sentences(), self._http.stream("POST", "/v1/cache/warm", json=body) as response:
            if not response.is_success:
                response.read()
                raise _problem(response)
            for line in response.iter_lines():
                yield json.loads(line)

    def sources(self) -> list[JSON]:
        """``GET /v1/sources``."""
        sources: list[JSON] = self._json("GET", "/v1/sources")["sources"]
        return sources

    def ready(self) -> tuple[bool, JSON]:
        """``GET /readyz``: whether it serves, and each dependency."""
        with self._sentences():
            response = self._http.get("/readyz")
        return response.is_success, _object(response)

    def _pages(self, path: str, field: str, page: int) -> Iterator[JSON]:
        cursor: str | None = None
        while True:
            params = {"limit": str(page)} | ({"cursor": cursor} if cursor else {})
            answer = self._json("GET", path, params=params)
            yield from answer[field]
            cursor = answer.get("next_cursor")
            if not cursor:
                return

    def _json(self, method: str, path: str, **options: Any) -> JSON:
        return _object(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        with self._sentences():
            response = self._http.request(method, path, **options)
        if not response.is_success:
            raise _problem(response)
        return response

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            msg = f"nothing answers at {self.url} ({_reason(error)}); start one with `ragkube run FILE` or give --url"
            raise UnreachableError(msg) from error
        except httpx2.TimeoutException as error:
            raise CliError(f"{self.url} did not answer in time") from error
        except httpx2.TransportError as error:
            raise UnreachableError(f"the connection to {self.url} broke ({_reason(error)})") from error


def _path(document_id: str) -> str:
    return f"/v1/documents/{quote(document_id, safe='/')}"


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise CliError(f"{url!r} is no http(s) URL; it looks like http://127.0.0.1:8080", exit_code=USAGE)
    return url.rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    text = str(error).lower()
    known = {
        "refused": "connection refused",
        "name or service": "unknown host",
        "nodename": "unknown host",
        "certificate": "its TLS certificate is not trusted",
    }
    return next((reason for sign, reason in known.items() if sign in text), str(error) or "no connection")


def _object(response: httpx2.Response) -> JSON:
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CliError(f"{response.url} answered {response.status_code}, but not as a ragkube API does")
    return value


def _problem(response: httpx2.Response) -> CliError:
    if "json" not in response.headers.get("content-type", ""):
        text = (
            f"{response.url} answered {response.status_code} {response.reason_phrase}: is this a ragkube API?"
        )
        return CliError(text, exit_code=FAILED)
    problem = _object(response)
    title = str(problem.get("title") or response.reason_phrase)
    fields = tuple(_fields(problem))
    # The detail of a wrong request only repeats its fields.
    message = title if fields else f"{title}: {problem.get('detail') or response.status_code}"
    return ApiError(response.status_code, str(problem.get("code", "")), message, fields)


def _fields(problem: Mapping[str, Any]) -> Iterator[str]:
    for entry in problem.get("errors") or ():
        yield f"{entry.get('field')}: {entry.get('message')}"
