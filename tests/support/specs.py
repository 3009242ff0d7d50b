"""Hypothesis strategies: specs that are valid by construction, up to the rules across fields."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ragkube_operator import crd

Json = dict[str, Any]

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TAIL = st.text(_LETTERS + "0123456789-", max_size=39).filter(lambda text: not text.endswith("-"))
DEPLOYMENT_NAMES = st.one_of(
    st.builds(str.__add__, st.sampled_from(_LETTERS), _TAIL), st.just("a" * 40), st.just("a" * 39 + "9")
)
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
DURATIONS = st.builds("{}{}".format, st.integers(1, 999_999), st.sampled_from("smhd"))
SIZES = st.builds("{}{}".format, st.integers(136, 4096), st.sampled_from(["Mi", "Gi", "M"]))
TTLS = st.sampled_from(["1s", "90s", "45m", "24h", "720h", "30d"])
CLASSES = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["live", "config-2", "a"]), "ttl": TTLS,
            "words": st.lists(st.sampled_from(["now", "right now", "λ"]), min_size=1, unique=True),
        }
    ),
    max_size=3, unique_by=lambda one: one["name"],
)  # fmt: skip
PERCENTS = st.sampled_from(["1%", "0.5%", "20%", "12.3456%"])
IMAGES = st.sampled_from(["redis:8.0", "registry.example:5000/a/b@sha256:" + "0" * 64, "x/y:1"])
SECRETS = st.fixed_dictionaries(
    {"name": NAMES, "key": st.from_regex(r"[-._a-zA-Z0-9]{1,20}", fullmatch=True)}
)
HOSTS = st.sampled_from(["weaviate", "w.data.svc", "10.0.0.1", "w-1.example.com"])
URLS = st.sampled_from(["http://x", "https://api.example.com/v1"])
MODELS = st.sampled_from(["claude", "models/λ", "a:b"])


def some(**fields: SearchStrategy[Any]) -> SearchStrategy[Json]:
    """Any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def exactly(**fields: SearchStrategy[Any]) -> SearchStrategy[Json]:
    """All of the fields."""
    return st.fixed_dictionaries(fields)


def join(first: SearchStrategy[Json], second: SearchStrategy[Json]) -> SearchStrategy[Json]:
    """Fields of both."""
    return st.builds(lambda a, b: {**a, **b}, first, second)


RESOURCES = some(
    requests=some(cpu=st.sampled_from(["50m", 1, "0.5"]), memory=st.sampled_from(["32Mi", "64Mi"])),
    limits=some(cpu=st.sampled_from([1, "2"]), memory=SIZES),
)
PLACEMENT: dict[str, SearchStrategy[Any]] = {
    "nodeSelector": st.dictionaries(NAMES, NAMES, max_size=3),
    "tolerations": st.lists(
        st.sampled_from([{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]),
        max_size=2,
    ),
    "resources": RESOURCES,
}
STORAGE = some(size=SIZES, storageClassName=NAMES)


def _union(
    default: str, option: str, member: str, ours: SearchStrategy[Json], theirs: SearchStrategy[Json]
) -> SearchStrategy[Json]:
    """``type`` with the member that belongs to it."""
    return st.one_of(
        some(**{member: ours, "type": st.just(default)}),
        exactly(**{"type": st.just(option), option_member(option): theirs}),
    )


def option_member(option: str) -> str:
    """The wire name of the member that goes with a type."""
    return {"External": "external", "OpenAI": "openAI"}[option]


REDIS = _union(
    "Managed", "External", "managed",
    some(
        flavor=st.sampled_from(["Redis", "Valkey"]), image=IMAGES, shards=st.integers(3, 100),
        replicasPerShard=st.integers(0, 5), storage=STORAGE, **PLACEMENT,
    ),
    join(
        exactly(nodes=st.lists(st.sampled_from(["a:1", "b.c:6379", "[::1]:6379"]), min_size=1, unique=True)),
        st.one_of(
            some(passwordSecretRef=SECRETS), exactly(tls=st.just(True), caSecretRef=SECRETS),
            exactly(username=NAMES, passwordSecretRef=SECRETS),
        ),
    ),
)  # fmt: skip
WEAVIATE = _union(
    "Managed", "External", "managed",
    some(
        image=IMAGES, replicas=st.sampled_from([1, 3, 4, 7, 30]), storage=STORAGE, **PLACEMENT,
    ),
    join(
        exactly(httpHost=HOSTS),
        some(
            httpPort=st.integers(1, 65535), grpcHost=HOSTS, grpcPort=st.integers(1, 65535), secure=st.booleans(),
            apiKeySecretRef=SECRETS, collectionPrefix=st.just("Abc1"), replicationFactor=st.integers(1, 9),
        ),
    ),
)  # fmt: skip
EMBEDDING = _union(
    "Wordllama", "OpenAI", "wordllama",
    some(dimensions=st.sampled_from([64, 128, 256])),
    join(
        exactly(url=URLS, model=MODELS, dimensions=st.integers(1, 8192)),
        some(apiKeySecretRef=SECRETS, batchSize=st.integers(1, 2048), timeout=DURATIONS),
    ),
)  # fmt: skip
PRICES = st.sampled_from([[], [{"model": "claude", "inputPerMtok": 3, "outputPerMtok": 15.5}]])
LLM: SearchStrategy[Json] = st.one_of(
    st.just({}),
    exactly(
        type=st.just("Anthropic"),
        anthropic=join(
            exactly(model=st.just("claude"), baseUrl=URLS, prices=PRICES),
            some(
                allowedModels=st.lists(MODELS, unique=True), apiKeySecretRef=SECRETS, timeout=DURATIONS,
                maxTokens=st.integers(1, 128_000), maxRetries=st.integers(0, 10),
            ),
        ),
    ),
)  # fmt: skip
VOLUMES = st.one_of(
    exactly(configMap=exactly(name=NAMES)), exactly(persistentVolumeClaim=exactly(claimName=NAMES))
)
SOURCES = st.lists(
    join(
        exactly(
            name=NAMES,
            directory=some(
                path=st.sampled_from([".", "docs", "a/b"]), include=st.just(["**/*.md"]), interval=DURATIONS,
                volume=VOLUMES,
            ),
        ),
        some(tenant=NAMES),
    ),
    max_size=4, unique_by=lambda source: source["name"],
)  # fmt: skip
AUTOSCALING = some(
    enabled=st.booleans(), minReplicas=st.integers(1, 10), maxReplicas=st.integers(10, 100),
    engine=st.sampled_from(["Auto", "KEDA", "Metrics", "CPU"]),
    targets=some(
        missesPerSecond=st.sampled_from([1, "2.5", "500m"]), localLatencyP95=st.sampled_from(["1ms", "2s"]),
        cpu=st.sampled_from([1, "700m"]),
    ),
    behavior=some(scaleUpWindow=st.just("30s"), scaleDownWindow=st.sampled_from(["0s", "5m", "1h"])),
)  # fmt: skip
SPECS = some(
    paused=st.booleans(),
    deletionPolicy=st.sampled_from(["Delete", "Retain"]),
    imagePullSecrets=st.lists(exactly(name=NAMES), max_size=2, unique_by=lambda entry: entry["name"]),
    api=some(
        replicas=st.integers(1, 100), image=IMAGES, maxConcurrency=st.integers(1, 10_000),
        requestTimeout=DURATIONS, logLevel=st.sampled_from(["Debug", "Info", "Warning", "Error"]), **PLACEMENT,
    ),
    workers=some(**PLACEMENT),
    auth=st.one_of(
        some(mode=st.just("ApiKey"), adminKeySecretRef=SECRETS, apiKeysSecretRef=SECRETS), exactly(mode=st.just("None"))
    ),
    limits=some(
        tiers=st.just(
            [{"name": "gold", "requestsPerMinute": 600}, {"name": "a", "requestsPerMinute": 1, "burst": 9}]
        )
    ),
    cache=some(
        enabled=st.booleans(),
        local=some(maxEntries=st.integers(0, 1_000_000), maxMemory=st.sampled_from(["16Mi", "64M"])),
        answers=some(ttl=TTLS, classes=CLASSES, staleWhileRevalidate=st.sampled_from(["1m", "7d"])),
        semantic=some(maxErrorRate=PERCENTS, auditRate=PERCENTS, verifier=exactly(url=URLS)),
        embeddings=some(ttl=TTLS),
        retrieval=some(ttl=TTLS),
        documents=some(ttl=TTLS),
        redis=REDIS,
    ),
    vectorStore=some(weaviate=WEAVIATE),
    embedding=EMBEDDING,
    llm=LLM,
    retrieval=some(k=st.integers(1, 20), alpha=st.floats(0, 1), chunkCharacters=st.integers(200, 8000)),
    documents=some(maxSize=SIZES, sources=SOURCES),
    network=some(policy=st.sampled_from(["Enabled", "Disabled"])),
    autoscaling=AUTOSCALING,
)  # fmt: skip


@st.composite
def deployments(draw: st.DrawFn) -> crd.RagDeployment:
    """Valid resources of every shape."""
    metadata = {"name": draw(DEPLOYMENT_NAMES), "namespace": draw(NAMES)}
    return crd.parse(
        {"apiVersion": crd.API_VERSION, "kind": crd.KIND, "metadata": metadata, "spec": draw(SPECS)}
    )
