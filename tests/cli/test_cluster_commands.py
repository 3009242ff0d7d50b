"""``kubectl ragkube status|top|logs|ask``: what the command makes of a cluster's answers, and which it asks for."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ragkube_operator.cli_deployment import age, steps
from ragkube_operator.cli_logs import merged
from ragkube_operator.cli_top import parse, quantile
from ragkube_operator.explanations import CONDITIONS, EXPLANATIONS
from ragkube_operator.status import PARTS, TROUBLE, Reason
from support.command import REPOSITORY, Command, Start, Write

Answers = dict[str, Any]
Cluster = Callable[[Answers], dict[str, str]]
SINCE = (datetime.now(UTC) - timedelta(minutes=12)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """`cluster(answers) -> environment`: a kubectl on the PATH that gives these answers."""

    def make(answers: Answers) -> dict[str, str]:
        program = tmp_path / "bin" / "kubectl"
        program.parent.mkdir(exist_ok=True)
        script = REPOSITORY / "tests" / "support" / "fake_kubectl.py"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} {tmp_path} "$@"\n')
        program.chmod(0o755)
        (tmp_path / "answers.json").write_text(json.dumps(answers))
        return {"PATH": f"{program.parent}:{os.environ['PATH']}"}

    return make


def condition(kind: str, status: str, reason: str, message: str = "text") -> dict[str, Any]:
    return {
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": SINCE,
    }  # fmt: skip


def deployment(*conditions: dict[str, Any], name: str = "docs", **spec: Any) -> dict[str, Any]:
    status = {
        "url": f"http://{name}.team-a.svc", "observedGeneration": 2, "api": {"summary": "1/2"}, "conditions": conditions,
    }  # fmt: skip
    meta = {"name": name, "namespace": "team-a", "uid": "u1", "generation": 2}
    return {"metadata": meta, "spec": spec, "status": status if conditions else {}}


READY = condition("Ready", "True", "AllPartsReady", "Every part is ready")
SICK = deployment(
    condition("Ready", "False", "SecretMissing", "SecretsReady: …"),
    condition("Reconciling", "True", "Progressing"),
    condition("Stalled", "False", "NoProblem"),
    condition("SecretsReady", "False", "SecretMissing", "Secret llm has no key api-key (spec.llm.anthropic)"),
    condition("APIReady", "False", "HeldBack"),
    condition("CacheReady", "True", "ClusterFormed"),
)
WARNING = {"lastTimestamp": SINCE, "reason": "SecretMissing", "message": "Secret llm is not there"}


@pytest.mark.proves("K4")
def test_status_explains_every_condition_and_says_what_to_do(ragkube: Command, cluster: Cluster) -> None:
    env = cluster({"get ragdeployments.ragkube.dev docs": SICK, "get events": {"items": [WARNING]}})
    done = ragkube("status", "docs", "-n", "team-a", **env)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["docs in team-a is not ready", "http://docs.team-a.svc", "API 1/2"]
    row = next(line for line in lines if line.startswith("SecretsReady"))
    assert row.split()[1:3] == ["False", "SecretMissing"]
    assert re.fullmatch(r"\d+[mh]", row.split()[3])
    told = done.stdout.split("What to do")[1]
    assert "SecretsReady: the message names Secret" in told
    assert "next: create it" in told
    assert "kubectl ragkube logs docs -n team-a" in told
    assert "CacheReady:" not in told
    assert "Ready: " not in told.replace("SecretsReady: ", "").replace("APIReady: ", "")
    assert "Secret llm is not there" in told.split("Last warnings")[1]


@pytest.mark.proves("K4")
def test_status_of_a_ready_deployment_needs_no_name_when_it_is_the_only_one(
    ragkube: Command, cluster: Cluster, tmp_path: Path
) -> None:
    env = cluster({"get ragdeployments": {"items": [deployment(READY)]}, "get events": {"items": []}})
    done = ragkube("status", "-n", "team-a", "--context", "prod", **env)
    assert done.returncode == 0, done.stderr
    assert "docs in team-a is ready" in done.stdout
    assert "What to do" not in done.stdout
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    assert all(
        call.startswith("--context prod get ") and call.endswith("--namespace team-a") for call in calls
    )


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "no RagDeployment in this namespace"),
        ([deployment(READY, name="a"), deployment(READY, name="b")], "which one? There are a, b"),
    ],
)
def test_none_or_a_choice_is_a_sentence(
    ragkube: Command, cluster: Cluster, items: list[Any], sentence: str
) -> None:
    done = ragkube("top", "-n", "x", **cluster({"get ragdeployments": {"items": items}}))
    assert done.returncode == 2
    assert sentence in done.stderr


def test_one_that_no_operator_has_seen_is_told_as_such(ragkube: Command, cluster: Cluster) -> None:
    done = ragkube("status", "docs", **cluster({"get ragdeployments.ragkube.dev docs": deployment()}))
    assert done.returncode == 1
    assert "No operator has seen it yet" in done.stdout


def test_without_kubectl_and_with_its_errors_there_is_a_sentence(ragkube: Command, cluster: Cluster) -> None:
    done = ragkube("status", "docs", PATH="/nowhere")
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "error: this needs kubectl, and there is none on the PATH",
    )
    done = ragkube("status", "docs", **cluster({}))
    assert done.returncode == 1
    assert done.stderr.startswith("error: kubectl get: Error from server (NotFound)")


METRICS = """# HELP rag_requests_in_flight x
rag_requests_in_flight 3.0
rag_requests_total{{method="POST",route="/v1/query",status="200"}} {count}
rag_requests_total{{method="GET",route="/readyz",status="200"}} 900.0
rag_cache_hits_total{{kind="exact",level="l1"}} 60.0
rag_cache_hits_total{{kind="exact",level="redis"}} 15.0
rag_cache_misses_total{{kind="exact"}} 25.0
rag_cache_hits_total{{kind="retrieval",level="l1"}} 7.0
rag_cache_misses_total{{kind="retrieval"}} 25.0
rag_cache_misses_total{{kind="embedding"}} 18.0
rag_request_latency_seconds_bucket{{le="0.005",route="/v1/query"}} 80.0
rag_request_latency_seconds_bucket{{le="0.5",route="/v1/query"}} 96.0
rag_request_latency_seconds_bucket{{le="+Inf",route="/v1/query"}} 100.0
process_resident_memory_bytes 1.048576e+08
"""


def pod(name: str) -> dict[str, Any]:
    states = [{"ready": True, "restartCount": 2}]
    return {
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {"containers": [{}]},
        "status": {"containerStatuses": states},
    }


@pytest.mark.proves("K4")
def test_top_shows_each_pods_load_hits_and_latency(ragkube: Command, cluster: Cluster) -> None:
    answers = {
        "get ragdeployments.ragkube.dev docs": deployment(READY),
        "get pods": {"items": [pod("docs-api-b"), pod("docs-api-a")]},
        "get --raw /api/v1/namespaces/team-a/pods/docs-api-a:8080/proxy/metrics": METRICS.format(count=100),
    }
    done = ragkube("top", "docs", "-n", "team-a", "--seconds", "0.1", **cluster(answers))
    assert done.returncode == 0, done.stderr
    header, first, second = done.stdout.splitlines()[:3]
    assert header.split() == [
        "POD",
        "READY",
        "RESTARTS",
        "IN-FLIGHT",
        "REQ/S",
        "HITS",
        "MISS/S",
        "P50",
        "P95",
        "MEMORY",
    ]
    assert first.split() == [
        "docs-api-a",
        "1/1",
        "2",
        "3",
        "0.0",
        "75%",
        "0.0",
        "<5ms",
        "<500ms",
        "100Mi",
    ]
    assert second.split()[:4] == ["docs-api-b", "1/1", "2", "-"]
    assert "docs-api-b: no metrics" in done.stderr
    found = json.loads(
        ragkube("top", "docs", "-n", "team-a", "--seconds", "0.1", "--json", **cluster(answers)).stdout
    )
    assert found[0]["hit_share"] == 0.75
    assert found[1]["trouble"].startswith("no metrics")


def test_quantiles_are_those_of_the_bucket_and_none_without_traffic() -> None:
    samples = parse(METRICS.format(count=1))
    assert quantile(samples, "rag_request_latency_seconds", 0.99, route="/v1/query") == float("inf")
    assert quantile(samples, "rag_request_latency_seconds", 0.5, route="/other") is None
    assert parse('a{b="x\\"y"} 1') == [("a", {"b": 'x\\"y'}, 1.0)]


def log(second: int, level: str = "info", **fields: Any) -> str:
    return json.dumps(
        {"event": "request", "level": level, "timestamp": f"2026-01-01T10:00:{second:02d}.5Z", **fields}
    )


@pytest.mark.proves("K4", "O3")
def test_logs_of_all_pods_are_merged_in_order_and_readable(
    ragkube: Command, cluster: Cluster, tmp_path: Path
) -> None:
    lines = [
        f"[pod/docs-api-a/api] {log(1, status=200)}",
        f"[pod/docs-api-a/api] {log(5, 'warning', status=503, code='store-unavailable')}",
        "[pod/docs-api-a/api] a line that is no JSON",
        f"[pod/docs-worker-b/worker] {log(3)}",
    ]
    env = cluster({"logs -l": "\n".join(lines)})
    done = ragkube("logs", "docs", "--since", "5m", "--tail", "7", **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "10:00:01.5Z api-a info    request status=200",
        "10:00:03.5Z worker-b info    request",
        "10:00:05.5Z api-a warning request status=503 code=store-unavailable",
        "api-a  a line that is no JSON",
    ]
    call = (tmp_path / "calls.txt").read_text()
    assert "app.kubernetes.io/component in (api,worker)" in call
    assert "--since=5m" in call
    assert "--tail=7" in call
    assert ragkube("logs", "docs", "--component", "disk", **env).returncode == 2


@pytest.mark.proves("K4")
def test_following_logs_shows_lines_as_they_come_and_fails_when_kubectl_fails(
    ragkube: Command, cluster: Cluster
) -> None:
    done = ragkube("logs", "docs", "--follow", **cluster({"logs -l": f"[pod/docs-api-a/api] {log(1)}"}))
    assert (done.returncode, done.stdout) == (0, "10:00:01.5Z api-a info    request\n"), done.stderr
    done = ragkube("logs", "docs", "--follow", **cluster({}))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Error from server (NotFound)" in done.stderr
    assert "error: kubectl logs ended with exit code 1" in done.stderr


def test_a_stack_trace_stays_with_its_line() -> None:
    lines = [f"[pod/a/c] {log(9)}", "[pod/a/c] Traceback", f"[pod/b/c] {log(1)}"]
    assert merged(lines) == [lines[2], lines[0], lines[1]]


@pytest.mark.proves("K4")
def test_ask_goes_through_a_forwarded_port_with_the_key_of_the_secret(
    ragkube: Command, cluster: Cluster, start: Start, manifest: Write, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "train.md").write_text(
        "# Release train\n\nThe release train leaves every second Tuesday."
    )
    api = start(manifest(), "--documents", tmp_path / "notes")
    port = api.url.rsplit(":", 1)[1].strip("/")
    answers = {
        "get ragdeployments.ragkube.dev docs": deployment(READY),
        "get secret docs-admin-key": {"data": {"key": "azNz"}},
        "port-forward service/docs :80": f"Forwarding from 127.0.0.1:{port} -> 8080",
    }
    env = cluster(answers)
    done = ragkube("ask", "docs", "When does the release train leave?", "-n", "team-a", **env)
    assert done.returncode == 0, done.stderr
    assert "second Tuesday" in done.stdout
    calls = (tmp_path / "calls.txt").read_text()
    assert "port-forward service/docs :80 --address 127.0.0.1 --namespace team-a" in calls
    answers["get secret docs-admin-key"] = {"data": {"another": "azNz"}}
    done = ragkube("ask", "docs", "When does it leave?", "-n", "team-a", **cluster(answers))
    assert "the Secret docs-admin-key has no key key; give the API key with" in done.stderr
    del answers["get secret docs-admin-key"]
    done = ragkube("ask", "docs", "When does it leave?", "-n", "team-a", **cluster(answers))
    assert "give the API key with --api-key-file" in done.stderr
    done = ragkube("ask", "when", "does", "it", "leave?")
    assert (done.returncode, "put the question in quotes" in done.stderr) == (2, True)


@pytest.mark.proves("K4")
def test_every_reason_is_explained_and_every_trouble_has_a_next_step() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    assert set(CONDITIONS) == {"Ready", "Reconciling", "Stalled", *PARTS}
    assert all(EXPLANATIONS[reason].meaning for reason in Reason)
    without = {reason for reason in TROUBLE if not EXPLANATIONS[reason].step}
    assert not without
    assert steps(deployment(condition("APIReady", "False", "SomethingOfALaterVersion"))) == []


def test_ages_are_short() -> None:
    assert [age(seconds) for seconds in (-1, 59, 61, 7200, 200000)] == ["0s", "59s", "1m", "2h", "2d"]
