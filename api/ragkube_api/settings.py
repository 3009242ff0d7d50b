"""The data plane's settings: one file, rendered by the operator or by ``ragkube run``.

This module is the only one that reads the environment: ``RAGKUBE_SETTINGS`` names the file (JSON).
Secrets never stand in it: a field that ends in ``_file`` is the path of a file that holds one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ragkube_api.errors import SettingsError

SETTINGS_VARIABLE = "RAGKUBE_SETTINGS"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Model):
    """Where the API listens and how it ends."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    drain_seconds: float = Field(default=0, ge=0, description="serve on after SIGTERM while endpoints update")
    grace_seconds: float = Field(default=25, gt=0, description="then wait this long for requests in flight")
    max_concurrency: int = Field(default=64, ge=1)
    request_timeout_seconds: float = Field(default=60, gt=0)
    slow_request_seconds: float = Field(default=1, gt=0, description="longer requests are marked in the log")


class NoAuth(_Model):
    """Everyone may do everything."""

    mode: Literal["none"] = "none"


class ApiKeyAuth(_Model):
    """``Authorization: Bearer KEY``; the files are read again when they change.

    ``keys_file`` has hashed keys beside the administrator's, one JSON object ``{name, sha256, role, tenant, tier}`` a line.
    """

    mode: Literal["api-key"] = "api-key"
    admin_key_file: Path
    keys_file: Path | None = None


AuthSettings = Annotated[NoAuth | ApiKeyAuth, Field(discriminator="mode")]


class RateTier(_Model):
    """How much one client may ask, over all replicas."""

    requests_per_minute: int = Field(ge=1, le=10_000_000)
    burst: int = Field(ge=1, le=1_000_000, description="requests at once after a pause")


class LimitSettings(_Model):
    """Rate limits by tier; a client whose tier is not named here is not limited."""

    tiers: dict[str, RateTier] = Field(default_factory=dict)
    default_tier: str = "default"


class WordllamaEmbedding(_Model):
    """Static embeddings in the process; the model is part of the package."""

    kind: Literal["wordllama"] = "wordllama"
    dimensions: Literal[64, 128, 256] = 256


class OpenAIEmbedding(_Model):
    """Any server with an OpenAI-compatible ``/v1/embeddings``."""

    kind: Literal["openai"] = "openai"
    url: str
    model: str
    dimensions: int = Field(ge=1, le=8192)
    api_key_file: Path | None = None
    batch_size: int = Field(default=64, ge=1, le=2048)
    timeout_seconds: float = Field(default=30, gt=0)


EmbeddingSettings = Annotated[WordllamaEmbedding | OpenAIEmbedding, Field(discriminator="kind")]


class EmbeddedStore(_Model):
    """SQLite and exact vectors in a directory that one process owns."""

    kind: Literal["embedded"] = "embedded"
    path: Path


class WeaviateStore(_Model):
    """A Weaviate server or cluster."""

    kind: Literal["weaviate"] = "weaviate"
    http_host: str
    http_port: int = 8080
    grpc_host: str
    grpc_port: int = 50051
    secure: bool = False
    api_key_file: Path | None = None
    collection_prefix: str = Field(default="Ragkube", pattern=r"^[A-Z][A-Za-z0-9]{0,63}$")
    replication_factor: int = Field(default=1, ge=1, le=9)
    timeout_seconds: float = Field(default=30, gt=0)


StoreSettings = Annotated[EmbeddedStore | WeaviateStore, Field(discriminator="kind")]


class MemoryCacheBackend(_Model):
    """Only the level in the process."""

    kind: Literal["memory"] = "memory"


class RedisCacheBackend(_Model):
    """A Redis Cluster (or Valkey); any of ``nodes`` tells the others."""

    kind: Literal["redis"] = "redis"
    nodes: list[str] = Field(min_length=1, description="host:port")
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    tls_ca_file: Path | None = None
    key_prefix: str = Field(default="ragkube", pattern=r"^[a-z0-9][a-z0-9.-]{0,126}$")
    timeout_seconds: float = Field(default=0.5, gt=0)


CacheBackend = Annotated[MemoryCacheBackend | RedisCacheBackend, Field(discriminator="kind")]


class LocalLevel(_Model):
    """The level in each replica: least recently used goes first."""

    max_entries: int = Field(default=10_000, ge=0, description="0: no level in the process above Redis")
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=0)


class TtlClass(_Model):
    """A category of questions, told by words or phrases in them; the first class that fits decides."""

    name: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")
    ttl_seconds: int = Field(ge=1)
    words: list[str] = Field(min_length=1, description="whole words or phrases, case does not matter")


class SemanticSettings(_Model):
    """Paraphrases answered from the cache under an error budget."""

    max_error_rate: float = Field(
        gt=0, le=0.2, description="share of served paraphrase hits that may be wrong"
    )
    audit_rate: float = Field(
        default=0.05, gt=0, le=1, description="share of hits answered again to check them"
    )
    verifier_url: str | None = Field(default=None, description="a cross-encoder that is asked last, by HTTP")
    verifier_threshold: float = Field(default=0.9, ge=0, le=1)
    verifier_model: str | None = Field(
        default=None, description="a model of llm that is asked last instead of a cross-encoder"
    )

    @model_validator(mode="after")
    def _one_verifier(self) -> Self:
        if self.verifier_url is not None and self.verifier_model is not None:
            msg = "name verifier_url or verifier_model, not both"
            raise ValueError(msg)
        return self


class CacheSettings(_Model):
    """What is cached, where and for how long."""

    enabled: bool = True
    backend: CacheBackend = MemoryCacheBackend()
    local: LocalLevel = LocalLevel()
    answer_ttl_seconds: int = Field(default=86_400, ge=1, description="where no class fits")
    classes: list[TtlClass] = Field(default_factory=list)
    stale_while_revalidate_seconds: int = Field(
        default=0, ge=0, description="serve an answer so long after its TTL while it is made anew"
    )
    embedding_ttl_seconds: int = Field(default=86_400, ge=1)
    retrieval_ttl_seconds: int = Field(default=2_700, ge=1)
    document_ttl_seconds: int = Field(default=3_600, ge=1)
    max_answer_bytes: int = Field(default=256 * 1024, ge=1024)
    flight_lease_seconds: float = Field(
        default=5, gt=0, description="a replica that computes for others is given up after so long in silence"
    )
    semantic: SemanticSettings | None = None


class ModelPrice(_Model):
    """US dollars for a million tokens."""

    input_per_mtok: float = Field(default=0, ge=0)
    output_per_mtok: float = Field(default=0, ge=0)


class ExtractiveLLM(_Model):
    """Answers are sentences quoted from the documents; no model is called."""

    kind: Literal["extractive"] = "extractive"


class AnthropicLLM(_Model):
    """Claude, or any server that speaks the Messages API at ``base_url``."""

    kind: Literal["anthropic"] = "anthropic"
    model: str
    allowed_models: list[str] = Field(
        default_factory=list, description="what a request may ask for besides model"
    )
    base_url: str | None = None
    api_key_file: Path | None = None
    max_tokens: int = Field(default=1024, ge=1)
    timeout_seconds: float = Field(default=60, gt=0)
    max_retries: int = Field(default=2, ge=0, le=10)
    prices: dict[str, ModelPrice] = Field(default_factory=dict)


LLMSettings = Annotated[ExtractiveLLM | AnthropicLLM, Field(discriminator="kind")]


class RetrievalSettings(_Model):
    """How documents are cut and how passages are found."""

    k: int = Field(default=5, ge=1, le=20)
    alpha: float = Field(default=0.5, ge=0, le=1, description="1 = vectors only, 0 = BM25 only")
    chunk_characters: int = Field(default=1000, ge=200, le=8000)


class DirectorySource(_Model):
    """A directory whose files are kept in the index; files that go, go from the index too."""

    kind: Literal["directory"] = "directory"
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    path: Path
    include: list[str] = Field(default_factory=lambda: ["**/*"])
    tenant: str = "default"
    interval_seconds: float | None = Field(
        default=None, gt=0, description="scan again this often; None: once"
    )


class DocumentSettings(_Model):
    """Limits of one document, and where documents come from."""

    max_bytes: int = Field(default=20 * 1024 * 1024, ge=1)
    sources: list[DirectorySource] = Field(default_factory=list)
    sync_in_api: bool = Field(
        default=False, description="the API keeps the sources also when the store is a server: on one machine"
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> DocumentSettings:
        names = [source.name for source in self.sources]
        if len(names) != len(set(names)):
            msg = "source names must be unique"
            raise ValueError(msg)
        return self


class LogSettings(_Model):
    """One JSON line per event, or text for a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(_Model):
    """Everything a data-plane process needs to know."""

    version: Literal[1] = 1
    deployment: str = Field(default="ragkube", description="name of the RagDeployment")
    namespace: str | None = None
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = NoAuth()
    limits: LimitSettings = LimitSettings()
    embedding: EmbeddingSettings = WordllamaEmbedding()
    store: StoreSettings
    cache: CacheSettings = CacheSettings()
    llm: LLMSettings = ExtractiveLLM()
    retrieval: RetrievalSettings = RetrievalSettings()
    documents: DocumentSettings = DocumentSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _verifier_has_a_server(self) -> Self:
        semantic = self.cache.semantic
        if semantic is not None and semantic.verifier_model is not None and self.llm.kind != "anthropic":
            msg = "cache.semantic.verifier_model needs llm.kind anthropic"
            raise ValueError(msg)
        return self


def load(path: Path) -> Settings:
    """Read settings from a JSON file.

    Raises:
        SettingsError: the file is missing, is no JSON, or a field is wrong (each one is named).
    """
    try:
        return Settings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"{path}: {problems}") from error


def from_environment() -> Settings:
    """Read the file that ``RAGKUBE_SETTINGS`` names."""
    path = os.environ.get(SETTINGS_VARIABLE)
    if not path:
        raise SettingsError(f"set {SETTINGS_VARIABLE} to the path of the settings file")
    return load(Path(path))
