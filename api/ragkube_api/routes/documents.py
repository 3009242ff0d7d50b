"""The documents of a tenant: put, upload, list, read, delete."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import PlainTextResponse, Response

from ragkube_api.domain import Document
from ragkube_api.errors import UnsupportedDocumentError
from ragkube_api.routes.documentation import PROBLEMS
from ragkube_api.routes.metadata import metadata_of
from ragkube_api.routes.request import AppRuntime, ReadTenant, WriteTenant, invalid, read_body
from ragkube_api.schemas import DocumentBody, DocumentListBody, StoredBody
from ragkube_api.services.document_ids import problem_with_id
from ragkube_api.services.ingestion import Stored, Upload, no_document, too_large

router = APIRouter(tags=["documents"])

_RAW_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The file as it is. Its Content-Type, or else the suffix of the id, says what it is.",
    }
}


@router.put(
    "/v1/documents/{id:path}",
    summary="Add or replace a document",
    response_model=StoredBody,
    responses={201: {"model": StoredBody, "description": "It is new."}, **PROBLEMS},
    openapi_extra=_RAW_BODY,
)
async def put_document(request: Request, runtime: AppRuntime, tenant: WriteTenant, id: str) -> Response:  # noqa: A002
    """On return every later query sees it.

    Metadata: `X-Ragkube-Meta-<key>: text`, `?meta.<key>=text`, or typed values as a JSON object in
    `X-Ragkube-Metadata`. The same content with the same metadata again changes nothing.
    """
    check_id(id)
    check_encoding(request)
    metadata = metadata_of(request)
    limit, seconds = runtime.ingestion.max_bytes, runtime.settings.server.request_timeout_seconds
    body = await read_body(request, limit, too_large(limit), seconds)
    content_type = request.headers.get("content-type", "")
    stored = await runtime.ingestion.put(Upload(tenant, id, body, content_type, metadata))
    headers = {"location": document_path(id)} if stored.outcome == "created" else {}
    return _json(stored_body(stored), status_of(stored), headers)


@router.get("/v1/documents", summary="List documents", response_model=DocumentListBody, responses=PROBLEMS)
async def list_documents(
    runtime: AppRuntime,
    tenant: ReadTenant,
    cursor: Annotated[str | None, Query(max_length=2048)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    source: Annotated[str | None, Query(max_length=63)] = None,
) -> Response:
    """In the order of their ids; `source` keeps the documents of one configured source."""
    page = await runtime.backends.store.list(tenant, cursor=cursor, limit=limit, source=source)
    documents = [document_body(document) for document in page.documents]
    return _json({"documents": documents, "next_cursor": page.next_cursor})


# Before the route of the document itself: the first route that matches is taken.
@router.get(
    "/v1/documents/{id:path}/content",
    summary="The stored text of a document",
    response_class=PlainTextResponse,
    responses=PROBLEMS,
)
async def get_content(runtime: AppRuntime, tenant: ReadTenant, id: str) -> Response:  # noqa: A002
    """The text that a citation's `start` and `end` count in, in Unicode code points."""
    found = await runtime.backends.store.text(tenant, id)
    if found is None:
        raise no_document(id)
    document, text = found
    return PlainTextResponse(text, headers={"etag": f'"{document.version}"'})


@router.get(
    "/v1/documents/{id:path}", summary="Describe a document", response_model=DocumentBody, responses=PROBLEMS
)
async def get_document(runtime: AppRuntime, tenant: ReadTenant, id: str) -> Response:  # noqa: A002
    """Version, title, metadata and size."""
    document = await runtime.cards.get(tenant, id)
    if document is None:
        raise no_document(id)
    return _json(document_body(document), headers={"etag": f'"{document.version}"'})


@router.delete("/v1/documents/{id:path}", summary="Remove a document", status_code=204, responses=PROBLEMS)
async def delete_document(runtime: AppRuntime, tenant: WriteTenant, id: str) -> Response:  # noqa: A002
    """On return no later answer rests on it."""
    await runtime.ingestion.delete(tenant, id)
    return Response(status_code=204)


def check_id(document_id: str, name: str = "id") -> None:
    """Refuse what cannot be an id."""
    problem = problem_with_id(document_id)
    if problem is not None:
        raise invalid(name, problem)


def check_encoding(request: Request) -> None:
    """A compressed body would be indexed as what it is not."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedDocumentError("Send the body without Content-Encoding.")


def status_of(stored: Stored) -> int:
    """201 for a new document."""
    return 201 if stored.outcome == "created" else 200


def stored_body(stored: Stored) -> dict[str, Any]:
    """The document after a write."""
    return {**document_body(stored.document), "unchanged": stored.outcome == "unchanged"}


def document_body(document: Document) -> dict[str, Any]:
    """What clients see of a document."""
    fields = {field.name: getattr(document, field.name) for field in dataclasses.fields(document)}
    del fields["tenant"], fields["fingerprint"]
    return {**fields, "metadata": dict(document.metadata)}


def document_path(document_id: str) -> str:
    """Where a document is found."""
    return f"/v1/documents/{quote(document_id, safe='/')}"


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")
