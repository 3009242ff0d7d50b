"""What a running application consists of. ``runtime.build`` makes it; routes only use it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragkube_api.auth import Authenticator
from ragkube_api.ports import (
    Answerer,
    AuditBook,
    CountBoard,
    Embedder,
    FencedCache,
    Flights,
    SourceBoard,
    ValueCache,
    VectorStore,
    Verifier,
)
from ragkube_api.services.answering import Answering
from ragkube_api.services.asked import AskedQuestions
from ragkube_api.services.cache_operations import CacheOperations
from ragkube_api.services.document_cards import DocumentCards
from ragkube_api.services.health import Health
from ragkube_api.services.ingestion import Ingestion
from ragkube_api.services.limits import Limiter, Reservations
from ragkube_api.services.sources import SourceSync
from ragkube_api.services.totals import DeploymentCounts
from ragkube_api.settings import Settings
from ragkube_api.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Backends:
    """The adapters behind the ports; ``fallback`` answers while the language model is away.

    ``values`` are kept in the process, ``shared_values`` in the level that all replicas share (None without one).
    """

    store: VectorStore
    embedder: Embedder
    answerer: Answerer
    fallback: Answerer | None
    cache: FencedCache
    values: ValueCache
    shared_values: ValueCache | None
    flights: Flights
    board: SourceBoard
    audits: AuditBook
    counts: CountBoard
    reservations: Reservations | None = None
    verifier: Verifier | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Settings, adapters and services of one process."""

    settings: Settings
    backends: Backends
    telemetry: Telemetry
    authenticator: Authenticator
    answering: Answering
    asked: AskedQuestions
    cache_operations: CacheOperations
    counts: DeploymentCounts
    cards: DocumentCards
    ingestion: Ingestion
    sources: SourceSync
    health: Health
    limiter: Limiter
