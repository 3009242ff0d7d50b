"""``ragkube run`` with parts that exist already: they are really used, and nothing is ever stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.command import Command, Start, Write
from support.redis import RedisServers
from support.weaviate import API_KEY, WeaviateServer


def external_weaviate(server: WeaviateServer) -> dict[str, Any]:
    """The spec's part for it."""
    return {
        "weaviate": {
            "type": "External",
            "external": {
                "httpHost": "127.0.0.1", "httpPort": server.http_port, "grpcPort": server.grpc_port,
                "apiKeySecretRef": {"name": "weaviate", "key": "api-key"},
            },
        }
    }  # fmt: skip


def secret(tmp_path: Path, name: str, key: str, value: str) -> None:
    path = tmp_path / ".ragkube-secrets" / name / key
    path.parent.mkdir(parents=True)
    path.write_text(value)


@pytest.mark.component("weaviate")
@pytest.mark.proves("K14")
def test_an_external_weaviate_is_filled_from_the_sources(
    start: Start,
    ragkube: Command,
    manifest: Write,
    folder: Path,
    tmp_path: Path,
    weaviate_server: WeaviateServer,
) -> None:
    secret(tmp_path, "weaviate", "api-key", API_KEY)
    file = manifest({"vectorStore": external_weaviate(weaviate_server)}, name="cli-external")
    run = start(file, "--documents", folder)
    assert "3 files: 3 indexed" in run.output
    assert "external Weaviate" in run.output
    assert "no answer cache: others may write into the external Weaviate" in run.output
    ask = ("ask", "When are backups taken?", "--json", "--url", run.url)
    first, second = (json.loads(ragkube(*ask).stdout) for _ in range(2))
    assert "two o'clock" in first["answer"]
    assert second["cache"]["status"] == "bypass"


@pytest.mark.component("redis")
@pytest.mark.proves("K14")
def test_an_external_redis_cluster_keeps_answers_over_a_restart(
    start: Start, ragkube: Command, manifest: Write, folder: Path, tmp_path: Path, redis_cluster: RedisServers
) -> None:
    settings = redis_cluster.settings()
    external: dict[str, Any] = {"nodes": settings.nodes}
    if settings.password_file is not None:
        secret(tmp_path, "redis", "password", settings.password_file.read_text())
        external["passwordSecretRef"] = {"name": "redis", "key": "password"}
    file = manifest({"cache": {"redis": {"type": "External", "external": external}}}, name="cli-external")
    first = start(file, "--documents", folder)
    ask = ("ask", "When are backups taken?", "--json", "--url")
    assert json.loads(ragkube(*ask, first.url).stdout)["cache"]["status"] == "miss"
    assert first.end() == 0
    second = start(file, "--documents", folder)
    answer = json.loads(ragkube(*ask, second.url).stdout)
    assert (answer["cache"]["status"], answer["cache"]["level"]) == ("hit", "redis")
    assert second.end() == 0
    (folder / "backup.md").write_text("# Backup\n\nBackups are taken every hour.\n")
    other = start(file, "--documents", folder, "--data", "other")
    answer = json.loads(ragkube(*ask, other.url).stdout)
    assert (answer["cache"]["status"], "hour" in answer["answer"]) == ("miss", True)
