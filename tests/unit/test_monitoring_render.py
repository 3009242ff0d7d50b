"""What monitoring adds to a platform, and that it adds it without touching what runs."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragkube_operator import crd, render, status
from ragkube_operator.render import dashboards
from ragkube_operator.status import Facts, Part, Reason
from support.processes import tool

CONTEXT = render.Context(api_image="ragkube/api:1", operator_version="1")
WORKLOADS = {"Deployment", "StatefulSet"}
EXTERNAL_KINDS = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}


def deployment(name: str = "x", **spec: Any) -> crd.RagDeployment:
    meta = {"name": name, "namespace": "team"}
    return crd.parse({"apiVersion": crd.API_VERSION, "kind": crd.KIND, "metadata": meta, "spec": spec})


def rendered(**spec: Any) -> dict[tuple[str, str], dict[str, Any]]:
    found = render.render(deployment(**spec), CONTEXT)
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


@pytest.mark.proves("K8")
@pytest.mark.parametrize("kind", ["Managed", "External"])
def test_switching_monitoring_on_replaces_no_pod_that_runs(kind: str) -> None:
    before, after = rendered(), rendered(monitoring={"type": kind})
    assert set(before) < set(after)
    assert all(after[key] == before[key] for key in before if key[0] in WORKLOADS)


@pytest.mark.proves("K8")
def test_an_existing_stack_gets_no_workload_but_the_exporter() -> None:
    added = set(rendered(monitoring={"type": "External"})) - set(rendered())
    assert {name for kind, name in added if kind in WORKLOADS} == {"x-redis-exporter"}
    assert {kind for kind, _ in added} >= EXTERNAL_KINDS
    without = rendered(monitoring={"type": "External"}, cache={"enabled": False})
    assert ("Deployment", "x-redis-exporter") not in without
    assert "ServiceMonitor" not in {kind for kind, _ in without}


@pytest.mark.proves("K8")
def test_parts_of_the_stack_can_be_left_out() -> None:
    off = {"alertmanager": {"enabled": False}, "grafana": {"enabled": False}}
    found = rendered(monitoring={"type": "Managed", "managed": off})
    assert not [
        name for _, name in found if "alertmanager" in name or "grafana" in name or "dashboard" in name
    ]
    assert "alerting" not in yaml.safe_load(found["ConfigMap", "x-prometheus"]["data"]["prometheus.yml"])
    secrets = render.generated_secrets(deployment(monitoring={"type": "Managed", "managed": off}))
    assert "x-grafana-admin" not in {secret.name for secret in secrets}


@pytest.mark.proves("K8")
@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"cache": {"enabled": False}},
        {"vectorStore": {"weaviate": {"type": "External", "external": {"httpHost": "w"}}}},
    ],
    ids=["whole", "uncached", "external-store"],
)
def test_prometheus_accepts_its_configuration_and_rules(tmp_path: Path, spec: dict[str, Any]) -> None:
    found = rendered(monitoring={"type": "Managed"}, **spec)
    for name, text in found["ConfigMap", "x-prometheus"]["data"].items():
        (tmp_path / name).write_text(text)
    command = [str(tool("promtool")), "check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.proves("K8")
def test_alertmanager_accepts_our_configuration_and_the_one_in_the_docs(
    tmp_path: Path, repository: Path
) -> None:
    ours = rendered(monitoring={"type": "Managed"})["ConfigMap", "x-alertmanager"]["data"]["alertmanager.yml"]
    page = (repository / "docs" / "monitoring.md").read_text()
    (shown,) = (block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "receivers:" in block)
    for name, content in (("ours.yml", ours), ("shown.yml", textwrap.dedent(shown))):
        (tmp_path / name).write_text(content)
    command = [str(tool("amtool")), "check-config", "ours.yml", "shown.yml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    # a check that accepts anything proves nothing
    (tmp_path / "wrong.yml").write_text(ours.replace("receiver: nobody", "receiver: somebody"))
    command = [str(tool("amtool")), "check-config", "wrong.yml"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0


@pytest.mark.proves("K8", "S6")
def test_the_exporter_has_a_password_for_our_redis_and_for_nobody_else() -> None:
    (secret,) = (
        each
        for each in render.generated_secrets(deployment(monitoring={"type": "Managed"}))
        if each.name == "x-redis-auth"
    )
    made = secret.missing({}, lambda: "s3cret")
    passwords = json.loads(made["exporter-6.json"])
    assert len(passwords) == 6
    assert passwords["redis://x-redis-0.x-redis.team.svc:6379"] == "s3cret"
    pod = rendered(monitoring={"type": "Managed"})["Deployment", "x-redis-exporter"]["spec"]["template"][
        "spec"
    ]
    assert pod["volumes"][0]["secret"]["items"] == [{"key": "exporter-6.json", "path": "passwords.json"}]


@pytest.mark.proves("O4")
def test_dashboards_of_two_deployments_get_on_in_one_grafana() -> None:
    boards = [json.loads(dashboards.content(deployment(name), b)) for name in "xy" for b in dashboards.NAMES]
    assert len({board["uid"] for board in boards}) == len(boards)
    assert len({board["title"] for board in boards}) == len(boards)
    assert '"@' not in json.dumps(boards)


@pytest.mark.proves("K8")
def test_ready_does_not_wait_for_monitoring() -> None:
    parts = {
        "APIReady": Part(True, Reason.AVAILABLE, "fine"),
        "MonitoringReady": Part(False, Reason.KIND_MISSING, "no Prometheus Operator"),
    }
    found = status.build(Facts(1, parts), {}, "2026-01-01T00:00:00Z")
    states = {item["type"]: item["status"] for item in found["conditions"]}
    assert states == {
        "Ready": "True", "Reconciling": "False", "Stalled": "False", "APIReady": "True", "MonitoringReady": "False",
    }  # fmt: skip
    (event,) = (e for e in status.events(found, {"conditions": []}) if e.kind == "Warning")
    assert event.reason == "KindMissing"
