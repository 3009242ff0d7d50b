"""What the pages on monitoring name is there: panels, log events, fields, labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragkube_api.telemetry import EVENTS
from ragkube_operator.render import dashboards


def page(repository: Path, name: str) -> str:
    return (repository / "docs" / name).read_text()


@pytest.mark.proves("O4")
def test_runbooks_name_panels_that_are_on_a_dashboard(repository: Path) -> None:
    files = Path(dashboards.__file__).parent
    titles = {
        panel["title"]
        for name in dashboards.NAMES
        for panel in json.loads((files / f"{name}.json").read_text())["panels"]
    }
    named = set(re.findall(r'"([A-Z][^"]+)"', page(repository, "runbooks.md")))
    assert len(named) > 3
    assert named <= titles


@pytest.mark.proves("O4")
def test_runbooks_name_events_that_are_logged(repository: Path) -> None:
    named = {
        event
        for line in re.findall(r"[Ll]ines ((?:`[^`]+`(?:, | and )?)+)", page(repository, "runbooks.md"))
        for event in re.findall(r"`([^`]+)`", line)
    }
    source = "".join(path.read_text() for path in (repository / "operator").rglob("*.py"))
    assert {"request_failed", "pass_failed"} <= named
    assert not {event for event in named if event not in EVENTS and f'"{event}"' not in source}


@pytest.mark.proves("O4", "K8")
@pytest.mark.parametrize("name", ["runbooks.md", "monitoring.md", "metrics.md", "troubleshooting.md"])
def test_the_pages_name_fields_that_exist(repository: Path, name: str) -> None:
    crd = yaml.safe_load((repository / "manifests" / "crd" / "ragkube.dev_ragdeployments.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path in set(re.findall(r"`(spec(?:\.\w+)+)", page(repository, name))):
        assert _has(schema, path.split(".")), path


def _has(schema: dict[str, Any], path: list[str]) -> bool:
    """Amounts of resources are a map."""
    if not path:
        return True
    if "additionalProperties" in schema:
        return len(path) == 1
    child = schema.get("properties", {}).get(path[0])
    return child is not None and _has(child, path[1:])


@pytest.mark.proves("O1")
def test_only_the_metrics_that_the_page_names_carry_a_tenant(repository: Path) -> None:
    text = page(repository, "metrics.md").rpartition("Labels never carry")[2]
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| (.*?) \|", page(repository, "metrics.md"), re.MULTILINE)
    assert len(rows) > 20
    assert {name for name, labels in rows if "`tenant`" in labels} == set(re.findall(r"`(rag_\w+)`", text))
