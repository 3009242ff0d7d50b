"""Fixtures: the command, runs in the background, manifests and documents."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import COMMAND, PATIENCE, READY, Command, Run, Start, Write, environment


@pytest.fixture
def ragkube(tmp_path: Path) -> Command:
    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *map(str, arguments)], env=environment(**env), cwd=tmp_path, capture_output=True, text=True,
            timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def run(*arguments: str | Path, wait: bool = True, **env: str) -> Run:
        new = Run([str(argument) for argument in arguments], tmp_path, env)
        runs.append(new)
        return new.wait_for(READY) if wait else new

    yield run
    for one in runs:
        if one.process.poll() is None:
            one.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(5)
            one.process.kill()
            one.process.wait()
        if one.process.stdout:
            one._reader.join(5)
            one.process.stdout.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A running ragkube without documents of its own; each test takes a tenant of its own."""
    path = tmp_path_factory.mktemp("shared")
    (path / "rag.yaml").write_text(
        "{apiVersion: ragkube.dev/v1alpha1, kind: RagDeployment, metadata: {name: docs}}"
    )
    run = Run(["rag.yaml"], path, {})
    yield run.wait_for(READY)
    assert run.end() == 0
    assert run.process.stdout
    run.process.stdout.close()


@pytest.fixture
def manifest(tmp_path: Path) -> Write:
    """Writes a RagDeployment; ``spec`` as Python objects (JSON is YAML)."""

    def write(spec: dict[str, Any] | None = None, name: str = "docs", file: str = "rag.yaml") -> Path:
        path = tmp_path / file
        body = {
            "apiVersion": "ragkube.dev/v1alpha1",
            "kind": "RagDeployment",
            "metadata": {"name": name},
            "spec": spec or {},
        }
        path.write_text(json.dumps(body))
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small documents."""
    path = tmp_path / "documents"
    path.mkdir()
    (path / "backup.md").write_text(
        "# Backup\n\nBackups are taken every night at two o'clock and kept for thirty days.\n"
    )
    (path / "paint.txt").write_text(
        "The workshop paints bicycles in green and in blue. Drying takes four hours.\n"
    )
    (path / "sub").mkdir()
    (path / "sub" / "lunch.html").write_text(
        "<html><body><h1>Lunch</h1><p>The canteen opens at noon.</p></body></html>"
    )
    return path
