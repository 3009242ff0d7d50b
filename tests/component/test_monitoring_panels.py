"""Every query of every panel on a real Prometheus, with real traffic through the API, Redis, Weaviate and the exporter."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.page import lines, page
from llm_server.server import running
from ragkube_operator import crd
from ragkube_operator.metrics import Metrics
from ragkube_operator.render import dashboards, rules
from ragkube_operator.render.monitoring import rule_file
from ragkube_operator.workers import Workers
from support.api import ApiProcess, api_process
from support.processes import Process, free_ports, tool, wait_for
from support.prometheus import PrometheusServer, Samples, running_prometheus, static_job
from support.redis import RedisServers
from support.weaviate import WeaviateServer

DEPLOYMENT = crd.parse(
    {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "metadata": {"name": "shop", "namespace": "team"},
        "spec": {"monitoring": {"type": "Managed", "objectives": {"dailyCostDollars": 5}}},
    }
)
LOOK = 30
"""Seconds that a panel shows."""


@dataclass(frozen=True)
class Panel:
    board: str
    title: str
    expr: str

    def __str__(self) -> str:
        return f"{self.board}: {self.title}: {self.expr}"


def panels() -> list[Panel]:
    found = []
    for board in dashboards.NAMES:
        for panel in _flat(json.loads(dashboards.content(DEPLOYMENT, board))["panels"]):
            found += [Panel(board, panel["title"], target["expr"]) for target in panel.get("targets", ())]
    return found


def _flat(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _flat(panel.get("panels") or [])


def query(panel: Panel) -> str:
    """As Grafana asks: its own variables filled in."""
    return panel.expr.replace("$__rate_interval", "10s").replace("$__range", f"{LOOK}s")


@pytest.fixture(scope="module")
def operator_address() -> Iterator[str]:
    """The operator's metrics after real workers took passes, one of which fails."""
    metrics = Metrics()
    metrics.ready.labels("team", "shop").set(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asyncio.run(_passes(metrics))
            body = metrics.exposition()
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


async def _passes(metrics: Metrics) -> None:
    done = asyncio.Event()

    async def reconcile(_: str) -> float:
        metrics.requests.labels("apply", "Deployment", "200").inc()
        done.set()
        return 60

    workers = Workers(reconcile, metrics)
    workers.wake("shop")
    await done.wait()
    await asyncio.sleep(0)
    await workers.stop()


@pytest.fixture(scope="module")
def exporter(redis_cluster: RedisServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """redis_exporter as the pod runs it: passwords by file, and only for the nodes that it may ask."""
    folder = tmp_path_factory.mktemp("exporter")
    (port,) = free_ports(1)
    nodes = {f"redis://127.0.0.1:{node}": redis_cluster.password for node in redis_cluster.ports}
    (folder / "passwords.json").write_text(json.dumps(nodes))
    arguments = [
        "--redis.addr=",
        f"--redis.password-file={folder / 'passwords.json'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--config-command=-",
    ]
    process = Process([tool("redis_exporter"), *arguments], folder / "log")
    process.start()
    try:
        url = f"http://127.0.0.1:{port}/health"
        wait_for("the exporter answers", lambda: urllib.request.urlopen(url).status == 200, seconds=20)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()


@pytest.fixture(scope="module")
def api(
    redis_cluster: RedisServers, weaviate_server: WeaviateServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiProcess]:
    """The API over Redis, Weaviate and a model with prices."""
    prices = {"m": {"input_per_mtok": 3, "output_per_mtok": 15}}
    redis = {"kind": "redis", **redis_cluster.settings(prefix="panels").model_dump(mode="json")}
    store = weaviate_server.settings(prefix="Panels").model_dump(mode="json")
    with running() as llm:
        model = {"kind": "anthropic", "model": "m", "base_url": llm.url, "prices": prices}
        folder = tmp_path_factory.mktemp("api")
        with api_process(folder, store=store, cache=_cache(redis), llm=model) as process:
            process.start()
            process.wait_until("/readyz", lambda answer: answer.status_code == 200, seconds=120)
            yield process
    weaviate_server.forget("Panels")


def _cache(redis: dict[str, Any]) -> dict[str, Any]:
    return {"backend": redis}


@pytest.fixture(scope="module")
def prometheus(
    api: ApiProcess,
    exporter: str,
    redis_cluster: RedisServers,
    weaviate_server: WeaviateServer,
    operator_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PrometheusServer]:
    own = {"namespace": "team", "ragkube_deployment": "shop"}
    jobs = [
        static_job(
            "ragkube", f"127.0.0.1:{api.port}", {**own, "ragkube_component": "api", "pod": "shop-api-a"}
        ),
        static_job(
            "weaviate",
            f"127.0.0.1:{weaviate_server.metrics_port}",
            {**own, "ragkube_component": "weaviate", "pod": "shop-weaviate-0"},
        ),
        _redis_job(redis_cluster, exporter, own),
        static_job("ragkube-operator", operator_address, {}, honor_labels=True),
    ]
    rule_groups = rule_file(DEPLOYMENT)
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), jobs, rule_groups) as server:
        yield server


def _redis_job(servers: RedisServers, exporter: str, own: dict[str, str]) -> dict[str, Any]:
    static = [
        {
            "targets": [f"redis://127.0.0.1:{port}"],
            "labels": {**own, "ragkube_component": "redis", "pod": f"shop-redis-{number}"},
        }
        for number, port in enumerate(servers.ports)
    ]
    relabel = [
        {"source_labels": ["__address__"], "target_label": "__param_target"},
        {"source_labels": ["pod"], "target_label": "instance"},
        {"target_label": "__address__", "replacement": exporter},
    ]
    return {
        "job_name": "redis",
        "metrics_path": "/scrape",
        "static_configs": static,
        "relabel_configs": relabel,
    }


def traffic(api: ApiProcess, round_: int) -> None:
    """Documents come, one is refused; questions miss, hit, and fail on the client's side."""
    with httpx2.Client(base_url=api.url, timeout=30) as client:
        for number in range(3):
            text = f"Ship {number} of fleet {round_} carries {number + 3} masts and sails to Bergen."
            answer = client.put(
                f"/v1/documents/ship-{number}.txt", content=text, headers={"content-type": "text/plain"}
            )
            assert answer.status_code in {200, 201}, answer.text
        client.put(
            "/v1/documents/bad.pdf", content=b"%PDF-nonsense", headers={"content-type": "application/pdf"}
        )
        for question in (f"How many masts has ship {round_ % 3}?", f"Where does fleet {round_} sail?"):
            for _ in range(2):
                answer = client.post("/v1/query", json={"question": question})
                assert answer.status_code == 200, answer.text
        assert client.post("/v1/query", json={"question": ""}).status_code == 422


@pytest.mark.proves("O4")
def test_no_panel_of_any_dashboard_is_empty(api: ApiProcess, prometheus: PrometheusServer) -> None:
    rounds = iter(range(10_000))

    def filled() -> bool:
        traffic(api, next(rounds))
        return not [panel for panel in panels() if not prometheus.range(query(panel), LOOK)]

    try:
        wait_for("every panel shows something", filled, seconds=90)
    except AssertionError:
        empty = [str(panel) for panel in panels() if not prometheus.range(query(panel), LOOK)]
        raise AssertionError("empty panels:\n" + "\n".join(empty)) from None


@pytest.mark.proves("O4")
@pytest.mark.parametrize("board", dashboards.NAMES)
def test_every_line_has_a_name_of_its_own_and_a_page_can_be_drawn(
    api: ApiProcess, prometheus: PrometheusServer, board: str, tmp_path: Path
) -> None:
    """The page stays in pytest's folder, for a look."""
    traffic(api, 0)
    content = json.loads(dashboards.content(DEPLOYMENT, board))

    def ask(expr: str) -> list[tuple[dict[str, str], Samples]]:
        found = prometheus.range(query(Panel(board, "", expr)), LOOK)
        return [(json.loads(labels), samples) for labels, samples in found.items()]

    for panel in content["panels"]:
        names = [line.name for line in lines(panel, ask)] if panel["type"] != "row" else []
        assert len(set(names)) == len(names), f"{panel['title']}: {names}"
        assert panel["type"] == "stat" or all(names), f"{panel['title']}: {names}"
    drawn = page(content, ask)
    (tmp_path / f"{board}.html").write_text(drawn)
    assert drawn.count("<section") == sum(panel["type"] != "row" for panel in content["panels"])


@pytest.mark.proves("O4")
def test_every_rule_is_evaluated_and_nothing_fires(api: ApiProcess, prometheus: PrometheusServer) -> None:
    traffic(api, 0)

    def settled() -> bool:
        found = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        assert not [rule["name"] for rule in found if rule["health"] == "err"]
        return all(rule["health"] == "ok" for rule in found)

    wait_for("every rule was evaluated", settled)
    assert prometheus.values('count(ALERTS{alertstate="firing"})') == []


@pytest.mark.proves("K9")
@pytest.mark.parametrize("record", [rules.Record.INFLIGHT, rules.Record.MISSES, rules.Record.LOCAL_P95])
def test_what_the_autoscaler_reads_is_there_and_a_number(
    api: ApiProcess, prometheus: PrometheusServer, record: str
) -> None:
    scope = rules.Scope("team", "shop")
    wait_for("the series is recorded", lambda: prometheus.values(scope.recorded(record)))
    (value,) = prometheus.values(scope.recorded(record))
    assert 0 <= value <= 1000


@pytest.mark.proves("O4")
@pytest.mark.parametrize("board", dashboards.NAMES)
def test_a_dashboard_has_nothing_that_grafana_does_not_know(board: str) -> None:
    """Grafana's own models drop what they do not know: what comes out must be what went in."""
    found = json.loads(dashboards.content(DEPLOYMENT, board))

    again = json.loads(json.dumps(Dashboard.from_json(found), cls=JSONEncoder))

    assert again == found
    assert found["uid"].startswith(f"ragkube-{board}-")
    assert len(found["uid"]) <= 40
