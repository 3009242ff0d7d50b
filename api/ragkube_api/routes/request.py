"""What routes need of a request: who asks, for which tenant, and the body within its limit."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Depends, Request

from ragkube_api.context import Runtime
from ragkube_api.domain import Identity
from ragkube_api.errors import FieldProblem, ForbiddenError, InvalidRequestError, RagkubeError
from ragkube_api.services.deadline import Deadline

TENANT_HEADER: Final = "X-Ragkube-Tenant"
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RANK: Final = {"reader": 0, "writer": 1, "admin": 2}


# Coroutines, though they await nothing: FastAPI sends plain functions through a thread.
async def runtime_of(request: Request) -> Runtime:
    """The application's parts."""
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime)  # noqa: S101 - set by create_app
    return runtime


def tenant_of(identity: Identity, asked: str | None, least: str) -> str:
    """Whose documents; ``asked`` is the tenant header. Raises what the client is told when it may not."""
    if _RANK[identity.role] < _RANK[least]:
        raise ForbiddenError(f"This needs the role '{least}'; yours is '{identity.role}'.")
    if asked is not None and not _TENANT.fullmatch(asked):
        raise invalid(TENANT_HEADER, "lower-case letters, digits and inner hyphens, at most 63 characters")
    if identity.tenant is not None and asked not in {None, identity.tenant}:
        raise ForbiddenError("Your credential belongs to another tenant.")
    return identity.tenant or asked or "default"


def _tenant(request: Request, least: str) -> str:
    tenant = tenant_of(request.state.identity, request.headers.get(TENANT_HEADER), least)
    request.state.facts["tenant"] = tenant
    return tenant


async def _reading_tenant(request: Request) -> str:
    return _tenant(request, "reader")


async def _writing_tenant(request: Request) -> str:
    return _tenant(request, "writer")


async def _administrators_tenant(request: Request) -> str:
    return _tenant(request, "admin")


async def _identity(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


AppRuntime = Annotated[Runtime, Depends(runtime_of)]
ReadTenant = Annotated[str, Depends(_reading_tenant)]
WriteTenant = Annotated[str, Depends(_writing_tenant)]
AdminTenant = Annotated[str, Depends(_administrators_tenant)]
Caller = Annotated[Identity, Depends(_identity)]


def invalid(name: str, message: str) -> InvalidRequestError:
    """One wrong field."""
    return InvalidRequestError(f"{name}: {message}.", problems=(FieldProblem(name, message),))


async def read_body(request: Request, limit: int, too_large: RagkubeError, seconds: float) -> bytes:
    """The whole body; stops reading at the limit."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async with Deadline(seconds):
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise too_large
    return bytes(body)
