"""Manifests that must be accepted or refused, with the sentence a user reads: by the API server and by Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]

KEY = {"name": "s", "key": "k"}
SERVER = {"model": "m", "baseUrl": "http://x"}
NODES = ["redis-0:6379", "[fd00::1]:6379"]


@dataclass(frozen=True)
class Refused:
    """A manifest that is refused with this line (and perhaps others)."""

    id: str
    line: str
    spec: Spec = field(default_factory=dict)
    name: str = "x"
    before: Spec | None = None
    """For rules about changes: the spec that exists already."""


@dataclass(frozen=True)
class Accepted:
    """A manifest that is accepted."""

    id: str
    spec: Spec = field(default_factory=dict)
    name: str = "x"
    before: Spec | None = None


def manifest(case: Refused | Accepted, spec: Spec | None = None) -> dict[str, Any]:
    """The whole object of a case."""
    return {
        "apiVersion": "ragkube.dev/v1alpha1",
        "kind": "RagDeployment",
        "metadata": {"name": case.name},
        "spec": case.spec if spec is None else spec,
    }


def redis(**fields: Any) -> Spec:
    """A spec with ``cache.redis``."""
    return {"cache": {"redis": fields}}


def weaviate(**fields: Any) -> Spec:
    """A spec with ``vectorStore.weaviate``."""
    return {"vectorStore": {"weaviate": fields}}


def anthropic(**fields: Any) -> Spec:
    """A spec with ``llm.anthropic``."""
    return {"llm": {"type": "Anthropic", "anthropic": fields}}


def api(**fields: Any) -> Spec:
    """A spec with ``api``."""
    return {"api": fields}


def monitoring(**fields: Any) -> Spec:
    """A spec with ``monitoring``."""
    return {"monitoring": fields}


def prometheus(**storage: Any) -> Spec:
    """A spec with a managed Prometheus on a volume."""
    return monitoring(type="Managed", managed={"prometheus": {"storage": storage}})


def toleration(**fields: Any) -> Spec:
    """A spec with one toleration of the API."""
    return {"api": {"tolerations": [fields]}}


def source(name: str = "docs", **directory: Any) -> dict[str, Any]:
    """A directory source."""
    return {"name": name, "directory": directory}


def answers(**fields: Any) -> Spec:
    """A spec with ``cache.answers``."""
    return {"cache": {"answers": fields}}


def ttl_class(**fields: Any) -> dict[str, Any]:
    """A class of questions."""
    return {"name": "fast", "ttl": "1m", "words": ["now"], **fields}


def semantic(**fields: Any) -> Spec:
    """A spec with ``cache.semantic``."""
    return {"cache": {"semantic": fields}}


def limits(**fields: Any) -> Spec:
    """A spec with ``limits``."""
    return {"limits": fields}


def sources(*entries: dict[str, Any]) -> Spec:
    """A spec with sources."""
    return {"documents": {"sources": list(entries)}}


def autoscaling(**fields: Any) -> Spec:
    """A spec with autoscaling on."""
    return {"autoscaling": {"enabled": True, **fields}}


_PROMETHEUS_VOLUME = (
    "the volume of a running Prometheus cannot be changed: "
    "set monitoring.type to None, wait until its pod is gone, then change it"
)
_FORBIDDEN = "Forbidden: {0} may be set only with type {1}: remove it or change type"
_REDIS, _WEAVIATE = "spec.cache.redis", "spec.vectorStore.weaviate"
_ENDPOINT = r"should match '^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):[0-9]{1,5}$'"
_NAME = (
    "a name has at most 40 characters a-z, 0-9 and -, and begins with a letter: "
    "names of Services and pods are made from it"
)
_SHARDS = (
    "spec.cache.redis: Invalid value: flavor, shards and replicasPerShard of a running Redis Cluster cannot be changed: "
    "set cache.enabled to false, wait until the Redis pods are gone, then change it and enable the cache again"
)
_REDIS_STORAGE = (
    "spec.cache.redis: Invalid value: storage of a running Redis Cluster cannot be added or removed: "
    "set cache.enabled to false, wait until the Redis pods are gone, then change it and enable the cache again"
)
_FEWER = (
    f"{_WEAVIATE}.managed: Invalid value: Weaviate's replicas cannot be reduced: "
    "the removed nodes hold documents"
)
_TARGETS = "spec.autoscaling.targets"
_SIZE = "the size of existing volumes cannot be changed: back up and create a new RagDeployment"
_VOLUMES = (
    f"{_WEAVIATE}.managed: Invalid value: the volumes of a running Weaviate cannot be changed: "
    "back up and create a new RagDeployment"
)
_HALF = (
    "spec.cache.local.maxMemory: Invalid value: cache.local.maxMemory may be at most half of "
    "api.resources.limits.memory: the process needs the rest"
)
_BUDGET = (
    "spec.cache.semantic.maxErrorRate: Invalid value: maxErrorRate must be above 0%: without a budget for errors remove "
    "semantic, then only the same question is answered from the cache"
)
_VERIFIER = (
    "spec.cache.semantic.verifier.url: Invalid value: a verifier has either a url (a cross-encoder) or a model "
    "(of spec.llm.anthropic)"
)
_AUDITS = (
    "spec.cache.semantic.auditRate: Invalid value: auditRate must be above 0% and at most 100%: "
    "without audits nobody knows how many hits are wrong"
)
_PERCENT = r"should match '^[0-9]{1,3}(\.[0-9]{1,4})?%$'"
_TIER = "spec.limits.defaultTier: Invalid value: defaultTier is none of tiers: add it there or name another"
_TEN_KEYS = dict.fromkeys("abcdefghij", 1)

REFUSED = [
    # schema
    Refused("unknown", 'unknown field "spec.api.replica": did you mean "replicas"?', api(replica=3)),
    Refused("unknown-in-list", 'unknown field "spec.documents.sources[0].dir": did you mean "directory"?',
            sources({"name": "a", "dir": {}, "directory": {}})),
    Refused("unknown-outside-its-type", 'unknown field "spec.cache.redis.shards": did you mean "managed.shards"?',
            redis(shards=6)),
    Refused("enum", 'spec.api.logLevel: Unsupported value: "debug": supported values: "Debug", "Info", '
            '"Warning", "Error"', api(logLevel="debug")),
    Refused("enum-number", 'spec.embedding.wordllama.dimensions: Unsupported value: 100: supported values: '
            '"64", "128", "256"', {"embedding": {"wordllama": {"dimensions": 100}}}),
    Refused("minimum", "spec.api.replicas: Invalid value: 0: spec.api.replicas in body should be greater than "
            "or equal to 1", api(replicas=0)),
    Refused("maximum", "spec.retrieval.alpha: Invalid value: 2: spec.retrieval.alpha in body should be less than "
            "or equal to 1", {"retrieval": {"alpha": 2}}),
    Refused("type-number", 'spec.api.replicas: Invalid value: "string": spec.api.replicas in body must be of type '
            'integer: "string"', api(replicas="3")),
    Refused("type-fraction", 'spec.api.replicas: Invalid value: "number": spec.api.replicas in body must be of '
            'type integer: "number"', api(replicas=1.5)),
    Refused("type-bool", 'spec.paused: Invalid value: "string": spec.paused in body must be of type boolean: '
            '"string"', {"paused": "yes"}),
    Refused("type-object", 'spec.api: Invalid value: "array": spec.api in body must be of type object: "array"',
            {"api": []}),
    Refused("type-list", 'spec.api.tolerations: Invalid value: "object": spec.api.tolerations in body must be of '
            'type array: "object"', api(tolerations={})),
    Refused("type-text", 'spec.api.nodeSelector.a: Invalid value: "integer": spec.api.nodeSelector.a in body must '
            'be of type string: "integer"', api(nodeSelector={"a": 1})),
    Refused("type-quantity", 'spec.api.resources.requests.cpu: Invalid value: "number": '
            'spec.api.resources.requests.cpu in body must be of type integer,string: "number"',
            api(resources={"requests": {"cpu": 0.5}})),
    Refused("duration", 'spec.api.requestTimeout: Invalid value: "1w": spec.api.requestTimeout in body should '
            "match '^[1-9][0-9]{0,5}(s|m|h|d)$'", api(requestTimeout="1w")),
    Refused("duration-zero", 'spec.cache.answers.ttl: Invalid value: "0s": spec.cache.answers.ttl in body should '
            "match '^[1-9][0-9]{0,5}(s|m|h|d)$'", {"cache": {"answers": {"ttl": "0s"}}}),
    Refused("quantity", 'spec.documents.maxSize: Invalid value: "20X": spec.documents.maxSize in body should match '
            r"'^[0-9]{1,12}(\.[0-9]{1,6})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$'", {"documents": {"maxSize": "20X"}}),
    Refused("missing", "spec.llm.anthropic.model: Required value", anthropic(baseUrl="http://x")),
    Refused("missing-in-list", "spec.documents.sources[0].directory: Required value", sources({"name": "a"})),
    Refused("empty-text", 'spec.documents.sources[0].directory.path: Invalid value: "": '
            "spec.documents.sources[0].directory.path in body should be at least 1 chars long",
            sources(source(path=""))),
    Refused("empty-list", f"{_REDIS}.external.nodes: Invalid value: 0: {_REDIS}.external.nodes in body should "
            "have at least 1 items", redis(type="External", external={"nodes": []})),
    Refused("too-many", "spec.imagePullSecrets: Too many: 9: must have at most 8 items",
            {"imagePullSecrets": [{"name": f"s{i}"} for i in range(9)]}),
    Refused("too-many-keys", "spec.api.resources.requests: Too many: 10: must have at most 8 items",
            api(resources={"requests": _TEN_KEYS})),
    Refused("too-long", "spec.api.nodeSelector.a: Too long: may not be more than 63 bytes",
            api(nodeSelector={"a": "b" * 64})),
    Refused("endpoint", f'{_REDIS}.external.nodes[0]: Invalid value: "redis": {_REDIS}.external.nodes[0] in body '
            f"{_ENDPOINT}", redis(type="External", external={"nodes": ["redis"]})),
    Refused("secret-key", "spec.auth.adminKeySecretRef.key: Invalid value: \"b c\": "
            "spec.auth.adminKeySecretRef.key in body should match '^[-._a-zA-Z0-9]+$'",
            {"auth": {"adminKeySecretRef": {"name": "a", "key": "b c"}}}),
    Refused("same-source", 'spec.documents.sources[1]: Duplicate value: {"name":"docs"}',
            sources(source(), source())),
    Refused("same-node", f'{_REDIS}.external.nodes[1]: Duplicate value: "a:1"',
            redis(type="External", external={"nodes": ["a:1", "a:1"]})),
    # rules
    Refused("name-dot", f'metadata.name: Invalid value: "a.b": {_NAME}', name="a.b"),
    Refused("name-digit", f'metadata.name: Invalid value: "1a": {_NAME}', name="1a"),
    Refused("name-long", f'metadata.name: Invalid value: "{"a" * 41}": {_NAME}', name="a" * 41),
    Refused("request-above-limit", "spec.api.resources.requests: Invalid value: a request must not be above the "
            "limit of the same resource",
            api(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "2000Mi"}})),
    Refused("request-above-limit-cpu", "spec.workers.resources.requests: Invalid value: a request must not be "
            "above the limit of the same resource",
            {"workers": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}}),
    Refused("toleration-key", "spec.api.tolerations[0].operator: Invalid value: a toleration without key needs "
            "operator Exists", toleration(operator="Equal")),
    Refused("toleration-value", "spec.api.tolerations[0].value: Forbidden: operator Exists takes no value: remove "
            "value or use operator Equal", toleration(key="a", operator="Exists", value="b")),
    Refused("toleration-seconds", "spec.api.tolerations[0].tolerationSeconds: Forbidden: tolerationSeconds needs "
            "effect NoExecute", toleration(key="a", tolerationSeconds=3)),
    Refused("admin-key", "spec.auth.adminKeySecretRef: Forbidden: adminKeySecretRef is used only with mode ApiKey: "
            "remove it or change mode", {"auth": {"mode": "None", "adminKeySecretRef": KEY}}),
    Refused("redis-external", f"{_REDIS}.external: Required value: type External needs the fields of external",
            redis(type="External")),
    Refused("redis-both", f"{_REDIS}.managed: {_FORBIDDEN.format('managed', 'Managed')}",
            redis(type="External", external={"nodes": NODES}, managed={})),
    Refused("redis-managed", f"{_REDIS}.external: {_FORBIDDEN.format('external', 'External')}",
            redis(external={"nodes": NODES})),
    Refused("redis-ca", f"{_REDIS}.external.caSecretRef: Forbidden: caSecretRef is used only with TLS: set tls: "
            "true or remove caSecretRef", redis(type="External", external={"nodes": NODES, "caSecretRef": KEY})),
    Refused("redis-user", f"{_REDIS}.external.passwordSecretRef: Required value: a username needs "
            "passwordSecretRef", redis(type="External", external={"nodes": NODES, "username": "u"})),
    Refused("weaviate-external", f"{_WEAVIATE}.external: Required value: type External needs the fields of "
            "external", weaviate(type="External")),
    Refused("weaviate-both", f"{_WEAVIATE}.managed: {_FORBIDDEN.format('managed', 'Managed')}",
            weaviate(type="External", external={"httpHost": "w"}, managed={"replicas": 3})),
    Refused("weaviate-managed", f"{_WEAVIATE}.external: {_FORBIDDEN.format('external', 'External')}",
            weaviate(external={"httpHost": "w"})),
    Refused("weaviate-two", f"{_WEAVIATE}.managed.replicas: Invalid value: two nodes have no majority when one is "
            "away: use 1, or 3 and more", weaviate(managed={"replicas": 2})),
    Refused("openai", "spec.embedding.openAI: Required value: type OpenAI needs the fields of openAI",
            {"embedding": {"type": "OpenAI"}}),
    Refused("openai-unused", f"spec.embedding.openAI: {_FORBIDDEN.format('openAI', 'OpenAI')}",
            {"embedding": {"openAI": {"url": "http://x", "model": "m", "dimensions": 8}}}),
    Refused("wordllama-unused", f"spec.embedding.wordllama: {_FORBIDDEN.format('wordllama', 'Wordllama')}",
            {"embedding": {"type": "OpenAI", "wordllama": {},
                           "openAI": {"url": "http://x", "model": "m", "dimensions": 8}}}),
    Refused("anthropic", "spec.llm.anthropic: Required value: type Anthropic needs the fields of anthropic",
            {"llm": {"type": "Anthropic"}}),
    Refused("anthropic-unused", f"spec.llm.anthropic: {_FORBIDDEN.format('anthropic', 'Anthropic')}",
            {"llm": {"anthropic": SERVER}}),
    Refused("anthropic-key", "spec.llm.anthropic.apiKeySecretRef: Required value: Anthropic's own API needs "
            "apiKeySecretRef (or name another server by baseUrl)", anthropic(model="m")),
    Refused("price", "spec.llm.anthropic.prices: Invalid value: prices name a model that is neither model nor one "
            "of allowedModels",
            anthropic(**SERVER, prices=[{"model": "n", "inputPerMtok": 1, "outputPerMtok": 1}])),
    Refused("volume-none", "spec.documents.sources[0].directory.volume: Invalid value: a volume has exactly one of "
            "persistentVolumeClaim and configMap", sources(source(volume={}))),
    Refused("volume-both", "spec.documents.sources[0].directory.volume: Invalid value: a volume has exactly one of "
            "persistentVolumeClaim and configMap",
            sources(source(volume={"configMap": {"name": "c"}, "persistentVolumeClaim": {"claimName": "c"}}))),
    Refused("path-up", "spec.documents.sources[0].directory.path: Invalid value: a path on a volume is relative to "
            "it and has no '..'", sources(source(path="a/../../b", volume={"configMap": {"name": "c"}}))),
    Refused("path-absolute", "spec.documents.sources[0].directory.path: Invalid value: a path on a volume is "
            "relative to it and has no '..'", sources(source(path="/a", volume={"configMap": {"name": "c"}}))),
    Refused("api-keys", "spec.auth.apiKeysSecretRef: Forbidden: apiKeysSecretRef is used only with mode ApiKey: "
            "remove it or change mode", {"auth": {"mode": "None", "apiKeysSecretRef": KEY}}),
    Refused("tier-unknown", _TIER, limits(defaultTier="gold", tiers=[{"name": "silver", "requestsPerMinute": 1}])),
    Refused("tier-none", _TIER, limits(defaultTier="gold")),
    Refused("tier-twice", 'spec.limits.tiers[1]: Duplicate value: {"name":"a"}',
            limits(tiers=[{"name": "a", "requestsPerMinute": 1}, {"name": "a", "requestsPerMinute": 2}])),
    Refused("tier-zero", "spec.limits.tiers[0].requestsPerMinute: Invalid value: 0: spec.limits.tiers[0]."
            "requestsPerMinute in body should be greater than or equal to 1",
            limits(tiers=[{"name": "a", "requestsPerMinute": 0}])),
    Refused("ttl-long", "spec.cache.answers.ttl: Invalid value: ttl may be at most 30d", answers(ttl="31d")),
    Refused("ttl-long-seconds", "spec.cache.answers.ttl: Invalid value: ttl may be at most 30d",
            answers(ttl="721h")),
    Refused("ttl-long-embeddings", "spec.cache.embeddings.ttl: Invalid value: ttl may be at most 30d",
            {"cache": {"embeddings": {"ttl": "44000m"}}}),
    Refused("ttl-long-retrieval", "spec.cache.retrieval.ttl: Invalid value: ttl may be at most 30d",
            {"cache": {"retrieval": {"ttl": "31d"}}}),
    Refused("ttl-long-documents", "spec.cache.documents.ttl: Invalid value: ttl may be at most 30d",
            {"cache": {"documents": {"ttl": "999999d"}}}),
    Refused("stale-long", "spec.cache.answers.staleWhileRevalidate: Invalid value: staleWhileRevalidate may be at "
            "most 7d", answers(staleWhileRevalidate="169h")),
    Refused("class-ttl-long", "spec.cache.answers.classes[0].ttl: Invalid value: ttl may be at most 30d",
            answers(classes=[ttl_class(ttl="31d")])),
    Refused("class-twice", 'spec.cache.answers.classes[1]: Duplicate value: {"name":"fast"}',
            answers(classes=[ttl_class(), ttl_class(ttl="2m")])),
    Refused("class-default", "spec.cache.answers.classes[0].name: Invalid value: default is the class of questions that "
            "fit no other (its TTL is answers.ttl): choose another name", answers(classes=[ttl_class(name="default")])),
    Refused("class-no-words", "spec.cache.answers.classes[0].words: Invalid value: 0: spec.cache.answers.classes[0]."
            "words in body should have at least 1 items", answers(classes=[ttl_class(words=[])])),
    Refused("class-blank-word", 'spec.cache.answers.classes[0].words[0]: Invalid value: " now": spec.cache.answers.'
            r"classes[0].words[0] in body should match '^\S(.*\S)?$'", answers(classes=[ttl_class(words=[" now"])])),
    Refused("class-word-twice", 'spec.cache.answers.classes[0].words[1]: Duplicate value: "now"',
            answers(classes=[ttl_class(words=["now", "now"])])),
    Refused("local-above-half", _HALF, {"cache": {"local": {"maxMemory": "600Mi"}}}),
    Refused("local-above-limit", _HALF,
            {"cache": {"local": {"maxMemory": "1Gi"}}, **api(resources={"limits": {"memory": "1000M"}})}),
    Refused("local-default-above-half", _HALF, api(resources={"limits": {"memory": "127Mi"}})),
    Refused("local-entries", "spec.cache.local.maxEntries: Invalid value: -1: spec.cache.local.maxEntries in body "
            "should be greater than or equal to 0", {"cache": {"local": {"maxEntries": -1}}}),
    Refused("budget-zero", _BUDGET, semantic(maxErrorRate="0%")),
    Refused("budget-zero-fraction", _BUDGET, semantic(maxErrorRate="0.0%")),
    Refused("budget-large", "spec.cache.semantic.maxErrorRate: Invalid value: maxErrorRate may be at most 20%",
            semantic(maxErrorRate="20.1%")),
    Refused("budget-number", 'spec.cache.semantic.maxErrorRate: Invalid value: "number": spec.cache.semantic.'
            'maxErrorRate in body must be of type string: "number"', semantic(maxErrorRate=0.01)),
    Refused("budget-text", 'spec.cache.semantic.maxErrorRate: Invalid value: "one": spec.cache.semantic.maxErrorRate '
            f"in body {_PERCENT}", semantic(maxErrorRate="one")),
    Refused("audits-zero", _AUDITS, semantic(auditRate="0%")),
    Refused("audits-many", _AUDITS, semantic(auditRate="101%")),
    Refused("verifier-none", _VERIFIER, semantic(verifier={})),
    Refused("verifier-two", _VERIFIER, {**semantic(verifier={"url": "http://v", "model": "m"}), **anthropic(**SERVER)}),
    Refused("verifier-model", "spec.cache.semantic.verifier.model: Invalid value: a verifier's model is one of "
            "spec.llm.anthropic: set llm.type to Anthropic, or name a url", semantic(verifier={"model": "m"})),
    Refused("min-above-max", "spec.autoscaling.minReplicas: Invalid value: minReplicas is above maxReplicas: lower "
            "minReplicas or raise maxReplicas", autoscaling(minReplicas=5, maxReplicas=4)),
    Refused("min-above-default-max", "spec.autoscaling.minReplicas: Invalid value: minReplicas is above maxReplicas: "
            "lower minReplicas or raise maxReplicas",
            autoscaling(minReplicas=11)),
    Refused("min-zero", "spec.autoscaling.minReplicas: Invalid value: 0: spec.autoscaling.minReplicas in body should "
            "be greater than or equal to 1", autoscaling(minReplicas=0)),
    Refused("in-flight-zero", f"{_TARGETS}.inFlight: Invalid value: 0: {_TARGETS}.inFlight in body should be greater "
            "than or equal to 1", autoscaling(targets={"inFlight": 0})),
    Refused("in-flight-above-limit", f"{_TARGETS}.inFlight: Invalid value: a pod never works on more than "
            "api.maxConcurrency requests: lower targets.inFlight or raise it",
            {**autoscaling(targets={"inFlight": 9}), **api(maxConcurrency=8)}),
    Refused("misses-zero", f"{_TARGETS}.missesPerSecond: Invalid value: missesPerSecond must be at least 1m: a pod "
            "always does some work", autoscaling(targets={"missesPerSecond": "0.0"})),
    Refused("cpu-zero", f"{_TARGETS}.cpu: Invalid value: cpu must be at least 1m: a pod always does some work",
            autoscaling(targets={"cpu": 0})),
    Refused("cpu-none-left", f"{_TARGETS}.cpu: Invalid value: cpu must be at least 1m: a pod always does some work",
            autoscaling(targets={"cpu": "0.0004"})),
    Refused("latency-zero", f'{_TARGETS}.localLatencyP95: Invalid value: "0ms": {_TARGETS}.localLatencyP95 in body '
            "should match '^[1-9][0-9]{0,5}(ms|s)$'", autoscaling(targets={"localLatencyP95": "0ms"})),
    Refused("window-long", "spec.autoscaling.behavior.scaleDownWindow: Invalid value: scaleDownWindow can be at most "
            "1h", autoscaling(behavior={"scaleDownWindow": "61m"})),
    Refused("window-up-long", "spec.autoscaling.behavior.scaleUpWindow: Invalid value: scaleUpWindow can be at most "
            "1h", autoscaling(behavior={"scaleUpWindow": "2h"})),
    Refused("engine", 'spec.autoscaling.engine: Unsupported value: "keda": supported values: "Auto", "KEDA", '
            '"Metrics", "CPU"', autoscaling(engine="keda")),
    Refused("monitoring-type", 'spec.monitoring.type: Unsupported value: "On": supported values: "None", "Managed", '
            '"External"', monitoring(type="On")),
    Refused("monitoring-managed", f"spec.monitoring.managed: {_FORBIDDEN.format('managed', 'Managed')}",
            monitoring(managed={})),
    Refused("monitoring-external", f"spec.monitoring.external: {_FORBIDDEN.format('external', 'External')}",
            monitoring(type="Managed", external={})),
    Refused("monitoring-url", 'spec.monitoring.external.prometheusUrl: Invalid value: "prometheus:9090": '
            "spec.monitoring.external.prometheusUrl in body should match '^https?://[^\\s/]+[^\\s]*$'",
            monitoring(type="External", external={"prometheusUrl": "prometheus:9090"})),
    Refused("availability", "spec.monitoring.objectives.availabilityPercent: Invalid value: 99.9999: "
            "spec.monitoring.objectives.availabilityPercent in body should be less than or equal to 99.999",
            monitoring(objectives={"availabilityPercent": 99.9999})),  # of a whole number it says "99"
    # changes
    Refused("prometheus-volume-appears", f"spec.monitoring.managed: Invalid value: {_PROMETHEUS_VOLUME}",
            prometheus(size="20Gi"), before=monitoring(type="Managed")),
    Refused("prometheus-volume-goes", f"spec.monitoring.managed: Invalid value: {_PROMETHEUS_VOLUME}",
            monitoring(type="Managed"), before=prometheus(storageClassName="fast")),
    Refused("prometheus-volume-grows", f"spec.monitoring.managed.prometheus.storage.size: Invalid value: {_SIZE}",
            prometheus(size="20Gi"), before=prometheus(size="10Gi")),
    Refused("shards", _SHARDS, redis(managed={"shards": 4}), before={}),
    Refused("replicas-per-shard", _SHARDS, redis(managed={"replicasPerShard": 2}),
            before=redis(managed={"replicasPerShard": 0})),
    Refused("flavor", _SHARDS, redis(managed={"flavor": "Valkey"}), before={}),
    Refused("weaviate-left", "spec.vectorStore.weaviate.type: Invalid value: leaving the managed Weaviate deletes its "
            "volumes: set deletionPolicy to Retain first, then change its type",
            {"deletionPolicy": "Retain", **weaviate(type="External", external={"httpHost": "w"})}, before={}),
    Refused("shards-default", _SHARDS, {}, before=redis(managed={"shards": 4})),
    Refused("redis-storage-added", _REDIS_STORAGE, redis(managed={"storage": {}}), before={}),
    Refused("redis-storage-removed", _REDIS_STORAGE, {}, before=redis(managed={"storage": {}})),
    Refused("redis-storage-size", f"{_REDIS}.managed.storage.size: Invalid value: {_SIZE}",
            redis(managed={"storage": {"size": "2Gi"}}), before=redis(managed={"storage": {"size": "1Gi"}})),
    Refused("weaviate-fewer", _FEWER, weaviate(managed={"replicas": 3}), before=weaviate(managed={"replicas": 5})),
    Refused("weaviate-fewer-default", _FEWER, {}, before=weaviate(managed={"replicas": 3})),
    Refused("weaviate-size", f"{_WEAVIATE}.managed.storage.size: Invalid value: {_SIZE}",
            weaviate(managed={"storage": {"size": "20Gi"}}), before=weaviate(managed={})),
    Refused("weaviate-class", f"{_WEAVIATE}.managed.storage.storageClassName: Invalid value: the storage class of "
            "existing volumes cannot be changed", weaviate(managed={"storage": {"storageClassName": "b"}}),
            before=weaviate(managed={"storage": {"storageClassName": "a"}})),
    Refused("weaviate-volumes-appear", _VOLUMES, weaviate(managed={"storage": {"size": "20Gi"}}), before={}),
    Refused("weaviate-volumes-go", _VOLUMES, {}, before=weaviate(managed={"storage": {"size": "20Gi"}})),
]  # fmt: skip

ACCEPTED = [
    Accepted("monitoring-managed", monitoring(type="Managed")),
    Accepted("monitoring-external", monitoring(type="External")),
    Accepted("objectives", monitoring(objectives={"availabilityPercent": 99, "dailyCostDollars": 12.5})),
    Accepted("prometheus-volume-spelt-out", prometheus(size="10240Mi"), before=monitoring(type="Managed")),
    Accepted("prometheus-volume-while-off", prometheus(size="20Gi"), before=monitoring(type="None")),
    Accepted("empty"),
    Accepted("name-40", name="a" * 40),
    Accepted("null-is-absent", {"llm": None, "api": {"image": None}}),
    Accepted("quantities", api(resources={"requests": {"cpu": 1, "memory": "0.5Gi"}, "limits": {"cpu": "1"}})),
    Accepted("limits-only", api(resources={"limits": {"memory": "128Mi"}})),
    Accepted("local-half", {"cache": {"local": {"maxEntries": 0, "maxMemory": "512Mi"}}}),
    Accepted("local-without-limit", {"cache": {"local": {"maxMemory": "8Gi"}},
                                     **api(resources={"requests": {"memory": "1Gi"}})}),
    Accepted("ttls", {"cache": {"answers": {"ttl": "30d", "staleWhileRevalidate": "7d"},
                                "embeddings": {"ttl": "720h"}, "retrieval": {"ttl": "43200m"},
                                "documents": {"ttl": "999999s"}}}),
    Accepted("no-classes", answers(classes=[])),
    Accepted("own-classes", answers(classes=[ttl_class(), ttl_class(name="slow", words=["for ever", "now"])])),
    Accepted("semantic", semantic()),
    Accepted("verifier-model", {**semantic(verifier={"model": "m"}), **anthropic(**SERVER)}),
    Accepted("semantic-bounds", semantic(maxErrorRate="20%", auditRate="100%", verifier={"url": "http://v/score"})),
    Accepted("semantic-small", semantic(maxErrorRate="0.0001%", auditRate="0.5%")),
    Accepted("api-keys", {"auth": {"apiKeysSecretRef": KEY}}),
    Accepted("tiers", limits(defaultTier="a", tiers=[{"name": "a", "requestsPerMinute": 1, "burst": 1}])),
    Accepted("tiers-no-default", limits(tiers=[{"name": "a", "requestsPerMinute": 600}])),
    Accepted("tolerations", api(tolerations=[
        {"operator": "Exists"}, {"key": "a", "value": "b"},
        {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
    ])),
    Accepted("open", {"auth": {"mode": "None"}}),
    Accepted("own-admin-key", {"auth": {"adminKeySecretRef": KEY}}),
    Accepted("redis-external", redis(type="External", external={
        "nodes": NODES, "tls": True, "caSecretRef": KEY, "username": "u", "passwordSecretRef": KEY})),
    Accepted("weaviate-external", weaviate(type="External", external={"httpHost": "w", "collectionPrefix": "Ab"})),
    Accepted("weaviate-three", weaviate(managed={"replicas": 3})),
    Accepted("autoscaling", autoscaling()),
    Accepted("autoscaling-all", autoscaling(
        minReplicas=3, maxReplicas=3, engine="KEDA", behavior={"scaleUpWindow": "30s", "scaleDownWindow": "60m"},
        targets={"inFlight": 64, "missesPerSecond": "2.5", "localLatencyP95": "2s", "cpu": 1})),
    Accepted("openai", {"embedding": {"type": "OpenAI",
                                      "openAI": {"url": "http://x/v1", "model": "m", "dimensions": 8}}}),
    Accepted("anthropic", anthropic(model="m", apiKeySecretRef=KEY, allowedModels=["n"], prices=[
        {"model": "n", "inputPerMtok": 1, "outputPerMtok": 0.5}])),
    Accepted("sources", sources(
        source("a", path="../x"), source("b", path="a/b", volume={"configMap": {"name": "c"}}),
        source("c", path="..x/y..", volume={"persistentVolumeClaim": {"claimName": "c"}}))),
    Accepted("shards-while-off", {"cache": {"enabled": False, "redis": {"managed": {"shards": 5}}}}, before={}),
    Accepted("shards-of-another", redis(managed={"shards": 5}),
             before=redis(type="External", external={"nodes": NODES})),
    Accepted("shards-spelt-out", redis(managed={"shards": 3, "replicasPerShard": 1}), before={}),
    Accepted("same-size", weaviate(managed={"storage": {"size": "10240Mi"}}), before=weaviate(managed={})),
    Accepted("volumes-spelt-out", weaviate(managed={"storage": {"size": "10Gi"}}), before={}),
    Accepted("more-weaviates", weaviate(managed={"replicas": 3}), before={}),
    Accepted("weaviate-external-later", weaviate(type="External", external={"httpHost": "w"}),
             before={"deletionPolicy": "Retain",
                     **weaviate(managed={"replicas": 3, "storage": {"size": "20Gi"}})}),
    Accepted("weaviate-managed-later", weaviate(managed={"replicas": 3}),
             before=weaviate(type="External", external={"httpHost": "w"})),
]  # fmt: skip
