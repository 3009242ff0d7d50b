"""The pages say what the code does: codes, metrics, commands and links are compared."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from typer.testing import CliRunner

import footprint
from ragkube_api import auth, errors
from ragkube_api.errors import RagkubeError
from ragkube_api.telemetry import EVENTS, Telemetry
from ragkube_operator import cli
from ragkube_operator.crd import API_VERSION, KIND, parse
from support.command import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]
HTTP_ONLY = {("not-found", "404"), ("method-not-allowed", "405")}
NEVER_SENT = {"settings-invalid", "startup-failed"}


def subclasses(kind: type[RagkubeError]) -> Iterator[type[RagkubeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


def test_every_error_code_is_documented_with_its_status() -> None:
    assert auth.AuthUnavailableError.__mro__[-1] is object
    page = (DOCS / "errors.md").read_text()
    documented = set(re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", page, re.MULTILINE))
    modules = {errors.__name__, auth.__name__}
    coded = {(e.code, str(e.status)) for e in subclasses(RagkubeError) if e.__module__ in modules}
    sent = {(code, status) for code, status in coded if code not in NEVER_SENT}
    assert documented == sent | HTTP_ONLY
    assert all(f"`{code}`" in page for code in NEVER_SENT)


def metrics() -> Iterator[Metric]:
    for metric in Telemetry().registry.collect():
        if metric.name.startswith("rag_"):
            yield metric


@pytest.mark.proves("O1")
def test_every_metric_is_documented_with_its_type() -> None:
    page = (DOCS / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(rag_[a-z_]+)` \| ([a-z]+) \|", page, re.MULTILINE))
    assert documented == {(m.name + ("_total" if m.type == "counter" else ""), m.type) for m in metrics()}


@pytest.mark.proves("O3")
def test_every_log_event_is_documented() -> None:
    page = (DOCS / "operations.md").read_text()
    assert set(re.findall(r"^\| `([a-z_.]+)` \| ", page, re.MULTILINE)) == set(EVENTS)


def help_of(*command: str) -> str:
    """In this process: that the program shows it too is tested with the commands."""
    result = CliRunner().invoke(cli.app, [*command, "--help"])
    assert result.exit_code == 0, result.output
    return result.stdout


def commands(*group: str) -> list[tuple[str, ...]]:
    """Of the command, or of one of its groups."""
    listed = help_of(*group).partition("\nCommands:\n")[2]
    found = re.findall(r"^  ([a-z]+)", listed, re.MULTILINE)
    assert found
    return [(*group, name) for name in found]


def test_every_command_and_option_is_documented() -> None:
    page = (DOCS / "cli.md").read_text()
    for command in (*commands(), *commands("cache"), *commands("keys")):
        assert f"ragkube {' '.join(command)}" in page
        options = re.findall(r"(--[a-z][a-z-]+)", help_of(*command))
        missing = {option for option in options if option != "--help" and f"`{option}" not in page}
        assert not missing, f"{command}: {missing}"


def shown_commands(page: Path) -> Iterator[list[str]]:
    """The arguments of every ``ragkube`` command in the console blocks of a page."""
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^\$ (?:kubectl )?ragkube (.*)$", block.replace("\\\n", " "), re.MULTILINE):
            words = shlex.split(line, comments=True)
            yield list(itertools.takewhile(lambda word: word not in {"|", ">", "&", "&&"}, words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_is_one(page: Path) -> None:
    """Its name and options exist; what they do is tested where they are."""
    runner = CliRunner()
    for arguments in shown_commands(page):
        result = runner.invoke(cli.app, [*arguments, "--help"])
        assert result.exit_code == 0, f"ragkube {shlex.join(arguments)}: {result.output}"


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    local = [link for link in links(page) if not link.startswith(("http:", "https:"))]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_readme_says_what_the_minimal_sample_asks_for() -> None:
    cores, memory = footprint.total(footprint.shares())
    text = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"asks for {cores.normalize()} CPU and {memory.normalize()} GiB of memory in all" in text


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    assert [
        page.name for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in index
    ] == []


def manifests(page: Path) -> Iterator[dict[str, Any]]:
    """Every RagDeployment on a page, and every piece of a spec as a whole one."""
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        found = yaml.safe_load(block)
        if "kind" in found:
            yield found
        else:
            yield {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "docs"}, "spec": found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_manifest_on_a_page_is_valid(page: Path) -> None:
    for manifest in manifests(page):
        if manifest["kind"] == KIND:
            assert parse(manifest).name
