"""``ask``, ``ingest``, ``documents``, ``status``: over HTTP, with every trouble as a sentence."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import REPOSITORY, Command, Run, Start, Write, environment


@pytest.mark.proves("I1")
def test_ingest_uploads_folders_and_names_what_fails(ragkube: Command, shared: Run, folder: Path) -> None:
    (folder / "empty.md").write_text("")
    (folder / ".hidden.md").write_text("# Hidden")
    first = ragkube("ingest", folder, "--url", shared.url, "--tenant", "ingest")
    assert first.returncode == 1
    assert "3 documents indexed, 0 unchanged, 1 failed" in first.stdout
    assert "empty.md: Document has no text: " in first.stderr
    (folder / "empty.md").unlink()
    again = ragkube("ingest", folder, "--url", shared.url, "--tenant", "ingest")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (
        0,
        "0 documents indexed, 3 unchanged, 0 failed",
    )


@pytest.mark.proves("I1")
def test_documents_are_listed_shown_and_deleted(ragkube: Command, shared: Run, folder: Path) -> None:
    here = {"RAGKUBE_URL": shared.url, "RAGKUBE_TENANT": "lists"}
    ragkube("ingest", folder / "backup.md", folder / "sub", "--prefix", "kb/", **here)
    listed = ragkube("documents", "list", **here).stdout
    assert "kb/backup.md" in listed
    assert "kb/lunch.html" in listed
    shown = json.loads(ragkube("documents", "get", "kb/backup.md", **here).stdout)
    assert shown["title"] == "Backup"
    assert "thirty days" in ragkube("documents", "get", "kb/backup.md", "--content", **here).stdout
    assert ragkube("documents", "delete", "kb/backup.md", **here).stdout == "deleted kb/backup.md\n"
    gone = ragkube("documents", "get", "kb/backup.md", **here)
    assert gone.returncode == 1
    assert gone.stderr == "error: Not found: There is no document 'kb/backup.md'.\n"


@pytest.mark.proves("Q7")
def test_metadata_given_at_upload_filter_questions(ragkube: Command, shared: Run, folder: Path) -> None:
    here = {"RAGKUBE_URL": shared.url, "RAGKUBE_TENANT": "meta"}
    given = ragkube(
        "ingest", folder / "backup.md", "--meta", "team=Größe 100%", "--meta", "year:=2026", **here
    )
    assert given.returncode == 0, given.stderr
    ask = ("ask", "When are backups taken?", "--filter", "year:=2026", "--filter")
    assert "two o'clock" in ragkube(*ask, "team=Größe 100%", **here).stdout
    assert "I don't know" in ragkube(*ask, "team=other", **here).stdout


def test_tenants_see_their_own_documents_only(ragkube: Command, shared: Run, folder: Path) -> None:
    ragkube("ingest", folder, "--url", shared.url, "--tenant", "team-a")
    assert "backup.md" in ragkube("documents", "list", "--url", shared.url, "--tenant", "team-a").stdout
    assert ragkube("documents", "list", "--url", shared.url).stdout == (
        "No documents yet. Add some with `ragkube ingest PATH`.\n"
    )


def test_two_files_must_not_become_one_document(ragkube: Command, folder: Path) -> None:
    (folder / "sub" / "backup.md").write_text("# Another")
    result = ragkube("ingest", folder, folder / "sub")
    assert result.returncode == 2
    assert "would both be the document 'backup.md'; use --prefix" in result.stderr


def test_status_shows_dependencies_and_sources(
    start: Start, ragkube: Command, manifest: Write, folder: Path
) -> None:
    run = start(manifest(), "--documents", folder)
    result = ragkube("status", "--url", run.url)
    assert result.returncode == 0
    assert f"{run.url} is ready" in result.stdout
    assert [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("store")] == [
        ["store", "up"]
    ]
    assert "documents  synced  3 of 3" in result.stdout
    report = json.loads(ragkube("status", "--json", "--url", run.url).stdout)
    assert report["ready"] is True


def test_wrong_fields_are_named(ragkube: Command, shared: Run) -> None:
    result = ragkube("ask", "hi", "--k", "50", "--url", shared.url)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "error: Invalid request"
    assert sorted(line.split(":")[0] for line in lines[1:]) == ["  k", "  question"]


@pytest.mark.parametrize("command", [("ask", "Who is there?"), ("status",), ("documents", "list")])
def test_nobody_there_is_a_sentence(ragkube: Command, command: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = ragkube(*command, "--url", url)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: nothing answers at {url} (connection refused); start one with `ragkube run FILE` or give --url\n"
    )


class _Other(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(502)
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the name is the library's

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def other_server() -> Iterator[str]:
    """Something on HTTP that is no ragkube."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_server_is_told_from_ours(ragkube: Command, other_server: str) -> None:
    result = ragkube("ask", "Who is there?", "--url", other_server)
    assert result.returncode == 1
    assert (
        result.stderr == f"error: {other_server}/v1/query answered 502 Bad Gateway: is this a ragkube API?\n"
    )


def test_a_proxy_of_the_environment_does_not_stand_between(ragkube: Command, shared: Run) -> None:
    assert ragkube("status", "--url", shared.url, HTTP_PROXY="http://127.0.0.1:1").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("ask", "Who?", "--url", "localhost"),
            "'localhost' is no http(s) URL; it looks like http://127.0.0.1:8080",
        ),
        (("ask", "Who?", "--filter", "team"), "--filter 'team' is not key=value"),
        (("ask", "Who?", "--filter", "n:=x"), "--filter 'n:=x': what follows := is no JSON value"),
        (
            ("ask", "Who?", "--api-key-file", "none"),
            "cannot read the API key file none: No such file or directory",
        ),
        (("ingest", "none"), "there is no file or directory none"),
    ],
)
def test_wrong_use_is_a_sentence(ragkube: Command, arguments: tuple[str, ...], sentence: str) -> None:
    result = ragkube(*arguments)
    assert (result.returncode, result.stderr) == (2, f"error: {sentence}\n")


def test_the_command_line_stays_light() -> None:
    """Help needs neither a Kubernetes client nor the HTTP client nor the schema."""
    heavy = ["kopf", "kubernetes", "httpx2", "pydantic", "redis", "yaml"]
    code = f"import sys, ragkube_operator.cli; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_commands_do_not_load_a_kubernetes_client() -> None:
    code = (
        "import sys, ragkube_operator.local, ragkube_operator.cli_manifest, ragkube_operator.render; "
        "print([m for m in ('kopf', 'kubernetes', 'redis', 'ragkube_api') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_the_version_is_the_package_s(ragkube: Command) -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    version = ragkube("version").stdout.removeprefix("ragkube ").strip()
    assert version == "0.0.0" or f'version = "{version}"' in project
