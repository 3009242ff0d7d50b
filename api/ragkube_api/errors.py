"""Every error the data plane raises on purpose, with its stable code and HTTP status.

``message`` is written for the client and never carries internal text; the cause is logged.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: where it stands (dotted path) and what to change."""

    field: str
    message: str


class RagkubeError(Exception):
    """Base of the tree."""

    code = "internal"
    status = 500
    title = "Internal error"

    def __init__(
        self,
        message: str,
        *,
        problems: tuple[FieldProblem, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems
        self.retry_after = retry_after


class SettingsError(RagkubeError):
    """The settings file cannot be used; the process does not start."""

    code, title = "settings-invalid", "Invalid settings"


class StartupError(RagkubeError):
    """The process cannot start: port in use, directory locked, read-only or full."""

    code, title = "startup-failed", "Cannot start"


class InvalidRequestError(RagkubeError):
    """A field of the request is wrong."""

    code, status, title = "invalid-request", 422, "Invalid request"


class MalformedBodyError(RagkubeError):
    """The body is not what its Content-Type says."""

    code, status, title = "malformed-body", 400, "Malformed body"


class BodyTooLargeError(RagkubeError):
    """More than a request of this kind may have; documents have a limit of their own."""

    code, status, title = "body-too-large", 413, "Body is too large"


class BadRequestError(RagkubeError):
    """What came is no HTTP request."""

    code, status, title = "bad-request", 400, "Bad request"


class HeadersTooLargeError(RagkubeError):
    """More headers, or longer ones, than anybody needs."""

    code, status, title = "headers-too-large", 431, "Headers are too large"


class RequestTimeoutError(RagkubeError):
    """The request did not come to the end of its headers."""

    code, status, title = "request-timeout", 408, "The request took too long to arrive"


class UnauthenticatedError(RagkubeError):
    """No credential, or one that is not known."""

    code, status, title = "unauthenticated", 401, "Authentication required"


class ForbiddenError(RagkubeError):
    """The identity may not do this."""

    code, status, title = "forbidden", 403, "Not allowed"


class NotFoundError(RagkubeError):
    """No such thing."""

    code, status, title = "not-found", 404, "Not found"


class ConflictError(RagkubeError):
    """Somebody else changed it meanwhile; read it again and repeat."""

    code, status, title = "conflict", 409, "Conflict"


class DocumentError(RagkubeError):
    """A document that cannot be indexed; the others are not affected."""

    code, status, title = "document-unusable", 422, "Document cannot be indexed"


class EmptyDocumentError(DocumentError):
    """No text in it."""

    code, title = "document-empty", "Document has no text"


class BrokenDocumentError(DocumentError):
    """The file is damaged."""

    code, title = "document-broken", "Document is damaged"


class EncryptedDocumentError(DocumentError):
    """The file asks for a password."""

    code, title = "document-encrypted", "Document is encrypted"


class MislabelledDocumentError(DocumentError):
    """The content is not of the type it is said to be."""

    code, title = "document-mislabelled", "Document is of another type"


class UnsupportedDocumentError(DocumentError):
    """A type that is not read."""

    code, status, title = "document-type-unsupported", 415, "Document type not supported"


class DocumentTooLargeError(DocumentError):
    """Above the size limit."""

    code, status, title = "document-too-large", 413, "Document is too large"


class RateLimitedError(RagkubeError):
    """The client has asked more than its tier allows."""

    code, status, title = "rate-limited", 429, "Too many requests"


class OverloadedError(RagkubeError):
    """Too much to do; try again later."""

    code, status, title = "overloaded", 503, "Overloaded"


class DependencyUnavailableError(RagkubeError):
    """Something this needs is away; try again later."""

    code, status, title = "dependency-unavailable", 503, "A dependency is unavailable"


class StoreUnavailableError(DependencyUnavailableError):
    """The vector store is away."""

    code, title = "store-unavailable", "The document store is unavailable"


class CacheUnavailableError(DependencyUnavailableError):
    """The cache is away. Queries go on without it; writes of documents need it."""

    code, title = "cache-unavailable", "The cache is unavailable"


class EmbedderUnavailableError(DependencyUnavailableError):
    """The embedding server is away."""

    code, title = "embedder-unavailable", "The embedding service is unavailable"


class LLMUnavailableError(DependencyUnavailableError):
    """The model server is away or overloaded."""

    code, title = "llm-unavailable", "The language model is unavailable"


class StorageFullError(RagkubeError):
    """No room to write; nothing was changed."""

    code, status, title = "storage-full", 507, "Storage is full"


class DeadlineExceededError(RagkubeError):
    """The request took longer than its limit."""

    code, status, title = "deadline-exceeded", 504, "Deadline exceeded"
