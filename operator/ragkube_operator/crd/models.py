"""``spec.embedding``, ``spec.llm`` and ``spec.retrieval``: what computes vectors and answers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ragkube_operator.crd.base import Duration, ModelName, Part, Url
from ragkube_operator.crd.common import SecretKeyRef
from ragkube_operator.crd.rules import Rule, union


class Wordllama(Part):
    """Static embeddings computed inside the API; nothing else is needed."""

    dimensions: Literal[64, 128, 256] = 256
    """Length of the vectors."""


class OpenAI(Part):
    """Any server with an OpenAI-compatible `/v1/embeddings` (TEI, vLLM, Ollama …)."""

    url: Url
    """Base address, like `http://tei.models.svc:8080/v1`."""
    model: ModelName
    """Name of the model."""
    dimensions: Annotated[int, Field(ge=1, le=8192)]
    """Length of the vectors that the model returns."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key; absent: none is sent."""
    batch_size: Annotated[int, Field(ge=1, le=2048)] = 64
    """Texts in one request."""
    timeout: Duration = "30s"
    """Time that a request may take."""


class Embedding(Part):
    """What turns text into vectors."""

    type: Literal["Wordllama", "OpenAI"] = "Wordllama"
    """`Wordllama`: built in. `OpenAI`: a server with that API."""
    wordllama: Wordllama | None = None
    """The built-in embeddings; absent with type Wordllama: all defaults."""
    openai: OpenAI | None = Field(default=None, alias="openAI")
    """The server."""

    rules: ClassVar[tuple[Rule, ...]] = union("type", wordllama=False, openAI=True)


class Price(Part):
    """US dollars for a million tokens of a model, for the cost metrics."""

    model: ModelName
    """Name of the model."""
    input_per_mtok: Annotated[float, Field(ge=0)]
    """Dollars for a million input tokens."""
    output_per_mtok: Annotated[float, Field(ge=0)]
    """Dollars for a million output tokens."""


class Anthropic(Part):
    """Claude, or any server that speaks the Messages API (gateways, vLLM, llama.cpp)."""

    model: ModelName
    """Model that answers."""
    allowed_models: Annotated[
        list[ModelName], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = Field(default_factory=list)
    """Models that a request may ask for besides `model`."""
    base_url: Url | None = None
    """Address of the server; absent: Anthropic's."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key; needed unless baseUrl names a server that asks for none."""
    max_tokens: Annotated[int, Field(ge=1, le=128_000)] = 1024
    """Longest answer."""
    timeout: Duration = "60s"
    """Time that a call may take."""
    max_retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts when the server is overloaded or away."""
    prices: Annotated[
        list[Price],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["model"]},
        ),
    ] = Field(default_factory=list)
    """Prices of the models; a model without one costs nothing in the metrics."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.apiKeySecretRef) || has(self.baseUrl)",
            message="Anthropic's own API needs apiKeySecretRef (or name another server by baseUrl)",
            holds=lambda self: self.api_key_secret_ref is not None or self.base_url is not None,
            field="apiKeySecretRef",
            reason="FieldValueRequired",
        ),
        Rule(
            cel="!has(self.prices) || self.prices.all(p, p.model == self.model || "
            "(has(self.allowedModels) && p.model in self.allowedModels))",
            message="prices name a model that is neither model nor one of allowedModels",
            holds=lambda self: {p.model for p in self.prices} <= {self.model, *self.allowed_models},
            field="prices",
        ),
    )


class LLM(Part):
    """What writes the answers."""

    type: Literal["Extractive", "Anthropic"] = "Extractive"
    """`Extractive`: sentences quoted from the documents, no model. `Anthropic`: Claude or a compatible server."""
    anthropic: Anthropic | None = None
    """The model and its server."""

    rules: ClassVar[tuple[Rule, ...]] = union("type", anthropic=True)


class Retrieval(Part):
    """How documents are cut and how passages are found; a request may choose k and alpha itself."""

    k: Annotated[int, Field(ge=1, le=20)] = 5
    """Passages that an answer is written from."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the vectors against BM25: 1 is vectors only, 0 is BM25 only."""
    chunk_characters: Annotated[int, Field(ge=200, le=8000)] = 1000
    """Longest passage. Changing it indexes every document of a source again."""
