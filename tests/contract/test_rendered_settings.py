"""Every settings file that the control plane renders is one that the data plane takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from ragkube_api.settings import (
    AnthropicLLM,
    ApiKeyAuth,
    EmbeddedStore,
    MemoryCacheBackend,
    RateTier,
    RedisCacheBackend,
    SemanticSettings,
    Settings,
    TtlClass,
    WeaviateStore,
)
from ragkube_operator import crd, render
from ragkube_operator.crd.spec import RagDeployment
from support.specs import deployments

SAMPLES = sorted((Path(__file__).parents[2] / "manifests" / "samples").glob("*.yaml"))
MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def cluster(deployment: RagDeployment) -> Settings:
    """As the API reads it from the ConfigMap."""
    context = render.Context(api_image="ragkube/api:1", operator_version="1")
    name = f"{deployment.name}-settings"
    (found,) = (
        m
        for m in render.render(deployment, context)
        if m["kind"] == "ConfigMap" and m["metadata"]["name"] == name
    )
    return Settings.model_validate_json(found["data"]["settings.json"])


def local(deployment: RagDeployment) -> Settings:
    """As ``ragkube run`` writes it."""
    wanted = render.local_settings(deployment, data=Path("/data"), port=8080, base=Path("/base"))
    return Settings.model_validate_json(json.dumps(wanted))


def parse(spec: dict[str, Any], name: str = "docs", namespace: str = "search") -> RagDeployment:
    metadata = {"name": name, "namespace": namespace}
    return crd.parse({"apiVersion": crd.API_VERSION, "kind": crd.KIND, "metadata": metadata, "spec": spec})


def sample(name: str) -> RagDeployment:
    (path,) = (path for path in SAMPLES if path.stem == name)
    return crd.parse(yaml.safe_load(path.read_text()))


@MANY
@given(deployments())
def test_the_api_takes_every_rendered_settings_file(deployment: RagDeployment) -> None:
    for found in (cluster(deployment), local(deployment)):
        assert found.deployment == deployment.name
        assert len(found.documents.sources) == len(deployment.spec.documents.sources)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_api_takes_the_settings_of_every_sample(path: Path) -> None:
    deployment = crd.parse(yaml.safe_load(path.read_text()))
    assert cluster(deployment).store.kind == "weaviate"
    local(deployment)


@pytest.mark.proves("K1")
def test_the_defaults_of_the_resource_are_those_of_the_api() -> None:
    """What a cluster does by default is what the same file does on one machine."""
    found, plain = cluster(parse({})), Settings(store=EmbeddedStore(path=Path("/x")))
    assert found.retrieval == plain.retrieval
    assert found.embedding == plain.embedding
    assert found.llm == plain.llm
    assert found.documents == plain.documents
    cache = found.cache.model_copy(update={"backend": plain.cache.backend, "classes": []})
    assert cache == plain.cache
    assert found.limits == plain.limits
    assert found.server.max_concurrency == plain.server.max_concurrency
    assert found.server.request_timeout_seconds == plain.server.request_timeout_seconds


@pytest.mark.proves("C5")
def test_the_built_in_classes_have_the_documented_ttls() -> None:
    found = {c.name: c.ttl_seconds for c in cluster(parse({})).cache.classes}
    assert found == {
        "live-state": 300, "troubleshooting": 3600, "configuration": 12 * 3600, "documentation": 24 * 3600,
    }  # fmt: skip
    assert cluster(parse({"cache": {"answers": {"classes": []}}})).cache.classes == []


def test_everything_that_is_said_about_the_cache_arrives() -> None:
    spec = {
        "cache": {
            "local": {"maxEntries": 7, "maxMemory": "2Mi"},
            "answers": {
                "ttl": "2h", "staleWhileRevalidate": "10m",
                "classes": [{"name": "fast", "ttl": "1m", "words": ["right now", "λ"]}],
            },
            "embeddings": {"ttl": "3h"}, "retrieval": {"ttl": "4m"}, "documents": {"ttl": "5s"},
            "semantic": {
                "maxErrorRate": "0.5%", "auditRate": "12%", "verifier": {"url": "http://v/score", "threshold": 0.75},
            },
        }
    }  # fmt: skip
    for found in (cluster(parse(spec)).cache, local(parse(spec)).cache):
        assert (found.local.max_entries, found.local.max_bytes) == (7, 2 * 2**20)
        assert (found.answer_ttl_seconds, found.stale_while_revalidate_seconds) == (7200, 600)
        assert found.classes == [TtlClass(name="fast", ttl_seconds=60, words=["right now", "λ"])]
        assert found.embedding_ttl_seconds == 3 * 3600
        assert (found.retrieval_ttl_seconds, found.document_ttl_seconds) == (240, 5)
        assert found.semantic == SemanticSettings(
            max_error_rate=0.005, audit_rate=0.12, verifier_url="http://v/score", verifier_threshold=0.75
        )


def test_a_model_as_the_verifier_arrives_without_a_threshold() -> None:
    server = {"type": "Anthropic", "anthropic": {"model": "m", "baseUrl": "http://x"}}
    spec = {"cache": {"semantic": {"verifier": {"model": "small"}}}, "llm": server}
    for found in (cluster(parse(spec)).cache.semantic, local(parse(spec)).cache.semantic):
        assert found == SemanticSettings(max_error_rate=0.01, audit_rate=0.05, verifier_model="small")


@pytest.mark.proves("C7")
def test_paraphrases_are_off_until_one_line_switches_them_on() -> None:
    assert cluster(parse({})).cache.semantic is None
    assert cluster(parse({"cache": {"semantic": {"maxErrorRate": "1%"}}})).cache.semantic == SemanticSettings(
        max_error_rate=0.01
    )


@pytest.mark.proves("S1")
def test_hashed_keys_are_a_file_of_their_secret() -> None:
    spec = {"auth": {"apiKeysSecretRef": {"name": "clients", "key": "keys"}}}
    found, here = cluster(parse(spec)).auth, local(parse(spec)).auth
    assert isinstance(found, ApiKeyAuth)
    assert found.keys_file == Path("/etc/ragkube/secrets/api-keys")
    assert isinstance(here, ApiKeyAuth)
    assert here.keys_file == Path("/data/secrets/clients/keys")


@pytest.mark.proves("S4")
def test_rate_limits_arrive_with_their_burst() -> None:
    tiers = [
        {"name": "free", "requestsPerMinute": 9},
        {"name": "gold", "requestsPerMinute": 6000, "burst": 50},
    ]
    found = cluster(parse({"limits": {"tiers": tiers, "defaultTier": "free"}})).limits
    assert found.default_tier == "free"
    assert found.tiers == {
        "free": RateTier(requests_per_minute=9, burst=1),
        "gold": RateTier(requests_per_minute=6000, burst=50),
    }


def test_the_defaults_of_a_model_server_are_those_of_the_api() -> None:
    found = cluster(parse({"llm": {"type": "Anthropic", "anthropic": {"model": "m", "baseUrl": "http://x"}}}))
    assert found.llm == AnthropicLLM(model="m", base_url="http://x")


def test_managed_databases_are_reached_inside_the_cluster_with_generated_secrets() -> None:
    found = cluster(parse({"vectorStore": {"weaviate": {"managed": {"replicas": 5}}}}))
    assert isinstance(found.store, WeaviateStore)
    assert found.store.http_host == "docs-weaviate.search.svc"
    assert found.store.replication_factor == 3
    assert found.store.api_key_file is not None
    assert isinstance(found.cache.backend, RedisCacheBackend)
    assert found.cache.backend.nodes[0] == "docs-redis.search.svc:6379"
    assert found.cache.backend.password_file is not None
    assert isinstance(found.auth, ApiKeyAuth)


def test_deployments_that_share_databases_do_not_share_data() -> None:
    shared = {
        "cache": {"redis": {"type": "External", "external": {"nodes": ["r:6379"]}}},
        "vectorStore": {"weaviate": {"type": "External", "external": {"httpHost": "w"}}},
    }
    seen = set()
    for name, namespace in (("a", "n"), ("b", "n"), ("a", "m")):
        found = cluster(parse(shared, name, namespace))
        assert isinstance(found.store, WeaviateStore)
        assert isinstance(found.cache.backend, RedisCacheBackend)
        seen.add((found.store.collection_prefix, found.cache.backend.key_prefix))
    assert len({prefix for prefix, _ in seen}) == len({prefix for _, prefix in seen}) == 3


@pytest.mark.proves("K14")
def test_on_one_machine_local_parts_stand_in_for_managed_ones() -> None:
    found = local(sample("quickstart"))
    assert isinstance(found.store, EmbeddedStore)
    assert isinstance(found.cache.backend, MemoryCacheBackend)
    assert (found.server.host, found.auth.mode) == ("127.0.0.1", "none")
    assert found.documents.sources[0].path == Path("/base/docs")


@pytest.mark.proves("K14")
def test_on_one_machine_external_parts_are_really_used() -> None:
    found = local(sample("external"))
    assert isinstance(found.store, WeaviateStore)
    assert found.store.api_key_file == Path("/data/secrets/weaviate/api-key")
    assert isinstance(found.cache.backend, RedisCacheBackend)
    assert found.cache.backend.tls_ca_file == Path("/data/secrets/redis-ca/ca.crt")


@pytest.mark.proves("K14")
def test_on_one_machine_a_key_is_asked_for_only_when_the_file_says_so() -> None:
    asked = local(parse({"auth": {"mode": "ApiKey"}})).auth
    assert isinstance(asked, ApiKeyAuth)
    assert asked.admin_key_file == Path("/data/admin-key")
    own = local(parse({"auth": {"adminKeySecretRef": {"name": "s", "key": "k"}}})).auth
    assert isinstance(own, ApiKeyAuth)
    assert own.admin_key_file == Path("/data/secrets/s/k")
    assert local(parse({"auth": {"mode": "None"}})).auth.mode == "none"


def test_a_source_is_read_from_its_volume_or_from_the_image() -> None:
    volume = {"configMap": {"name": "c"}}
    found = cluster(
        parse(
            {
                "documents": {
                    "sources": [
                        {"name": "root", "directory": {"volume": volume, "interval": "5m"}},
                        {"name": "inside", "directory": {"path": "a/b", "volume": volume}},
                        {"name": "image", "directory": {"path": "docs"}},
                    ]
                }
            }
        )
    )
    root, inside, image = found.documents.sources
    assert (root.path, root.interval_seconds) == (Path("/sources/root"), 300)
    assert inside.path == Path("/sources/inside/a/b")
    assert (image.path, image.interval_seconds) == (Path("docs"), None)
