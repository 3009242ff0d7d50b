"""A real Prometheus: one process on a loopback port that scrapes every second."""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from support.processes import Process, free_ports, tool, wait_for

Samples = list[tuple[float, float]]


class PrometheusServer:
    """Scrapes ``jobs`` and evaluates ``rules``, both once a second."""

    def __init__(self, folder: Path, jobs: list[dict[str, Any]], rules: Mapping[str, Any]) -> None:
        (self.port,) = free_ports(1)
        fast = {"groups": [{**group, "interval": "1s"} for group in rules["groups"]]}
        (folder / "rules.yml").write_text(yaml.safe_dump(fast))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = Process(
            [
                tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            folder / "log",
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether it answers; raises an OSError until then."""
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)

    def get(self, path: str, **parameters: str) -> Any:
        """The ``data`` of an answer of its API."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def range(self, expr: str, seconds: int, step: int = 1) -> dict[str, Samples]:
        """Every series of a query with its real values over the last seconds."""
        now = time.time()
        found = self.get(
            "query_range", query=expr, start=str(now - seconds), end=str(now), step=str(step)
        )  # fmt: skip
        return {
            json.dumps(series["metric"], sort_keys=True): values
            for series in found["result"]
            if (values := [(t, float(v)) for t, v in series["values"] if math.isfinite(float(v))])
        }

    def values(self, expr: str) -> list[float]:
        """The values of an instant query."""
        return [float(series["value"][1]) for series in self.get("query", query=expr)["result"]]


@contextmanager
def running_prometheus(
    folder: Path, jobs: list[dict[str, Any]], rules: Mapping[str, Any]
) -> Iterator[PrometheusServer]:
    """A server that is ready; it is killed at the end."""
    server = PrometheusServer(folder, jobs, rules)
    server.process.start()
    try:
        wait_for("prometheus is ready", server.ready, seconds=60)
        yield server
    finally:
        server.process.kill()


def static_job(name: str, address: str, labels: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """A job with one target and the labels that service discovery gives it in a cluster."""
    return {"job_name": name, "static_configs": [{"targets": [address], "labels": dict(labels)}], **more}
