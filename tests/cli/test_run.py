"""``ragkube run``: the same file on one machine, and every trouble as a sentence."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import PATIENCE, REPOSITORY, Command, Start, Write

QUICKSTART = REPOSITORY / "manifests" / "samples" / "quickstart.yaml"


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        body: bytes = response.read()
        return body


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


@pytest.mark.proves("K14")
@pytest.mark.proves("Q11")
def test_the_quickstart_answers_a_question_about_our_docs_with_citations(
    start: Start, ragkube: Command
) -> None:
    run = start(QUICKSTART)
    result = ragkube("ask", "For how long is an answer cached?", "--json", "--url", run.url)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["answerer"] == "extractive"
    assert answer["model"] is None
    assert "24 hours" in answer["answer"]
    assert "caching.md" in {citation["document"] for citation in answer["citations"]}
    for citation in answer["citations"]:
        text = get(f"{run.url}/v1/documents/{citation['document']}/content").decode()
        assert text[citation["start"] : citation["end"]] == citation["quote"]
    assert "SQLite" in run.output
    printed = shlex.split(run.output[run.output.index("curl -s") :].split("ask")[0].replace("\\\n", ""))
    assert json.loads(printed[printed.index("-d") + 1])["question"].startswith("How do I install")
    assert f"{run.url}/v1/query" in printed
    assert "Redis Cluster" in run.output


@pytest.mark.proves("K14")
def test_a_person_reads_answer_citation_and_origin(
    start: Start, ragkube: Command, manifest: Write, folder: Path
) -> None:
    run = start(manifest(), "--documents", folder)
    ask = ("ask", "When are backups taken?", "--url", run.url)
    first, second = ragkube(*ask), ragkube(*ask)
    assert "every night at two o'clock" in first.stdout
    assert "[1] backup.md" in first.stdout
    assert "extractive answer · cache miss" in first.stdout
    assert "cache hit (l1" in second.stdout
    assert "\x1b" not in first.stdout + run.output


@pytest.mark.proves("I4")
def test_a_second_start_indexes_nothing_again(start: Start, manifest: Write, folder: Path) -> None:
    file = manifest()
    first = start(file, "--documents", folder)
    assert "3 files: 3 indexed, 0 unchanged" in first.output
    assert first.end() == 0
    (folder / "new.txt").write_text("A new file about gears and chains.")
    second = start(file, "--documents", folder)
    assert "4 files: 1 indexed, 3 unchanged" in second.output


@pytest.mark.proves("K14")
def test_another_folder_replaces_the_documents(
    start: Start, ragkube: Command, manifest: Write, folder: Path
) -> None:
    notes = {"name": "notes", "directory": {"path": str(folder)}}
    lunch = {"name": "lunch", "tenant": "kitchen", "directory": {"path": str(folder / "sub")}}
    file = manifest({"documents": {"sources": [notes, lunch]}})
    first = start(file)
    assert "4 files: 4 indexed" in first.output
    first.end()
    other = folder.parent / "other"
    other.mkdir()
    (other / "tea.txt").write_text("Tea is served at four in the garden.")
    run = start(file, "--documents", other)
    assert "1 file: 1 indexed, 0 unchanged, 3 deleted" in run.output
    assert "removed 1 document of sources that are not used any more" in run.output
    listed = ragkube("documents", "list", "--url", run.url).stdout
    assert "tea.txt" in listed
    assert "backup.md" not in listed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.proves("K14")
def test_a_signal_ends_everything_in_order(start: Start, manifest: Write, number: signal.Signals) -> None:
    run = start(manifest())
    (child,) = run.children()
    assert run.end(number) == 0
    assert gone(child)
    assert run.lines[-1] == "stopped"
    assert "Traceback" not in run.output


@pytest.mark.proves("K14")
def test_nothing_is_left_after_kill_9_and_the_next_run_starts(start: Start, manifest: Write) -> None:
    file = manifest()
    run = start(file)
    (child,) = run.children()
    run.end(signal.SIGKILL)
    start(file)
    wait_until_gone(child)


def test_an_api_that_dies_ends_the_run_with_a_sentence(start: Start, manifest: Write) -> None:
    run = start(manifest())
    os.kill(run.children()[0], signal.SIGKILL)
    assert run.process.wait(PATIENCE) == 1
    run.end(signal.SIGCONT) if run.process.poll() is None else run._reader.join(5)
    assert "error: the API ended (exit code -9)" in run.output
    assert "api.log" in run.output


@pytest.mark.proves("K14")
def test_kill_9_in_the_middle_of_ingestion_loses_nothing(
    start: Start, ragkube: Command, manifest: Write, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(400):
        (many / f"{number:03}.txt").write_text(f"Machine {number} is painted in colour {number * 7}. " * 40)
    file = manifest()
    run = start(file, "--documents", many, wait=False).wait_for("Indexing documents: ")
    run.end(signal.SIGKILL)
    again = start(file, "--documents", many)
    assert "400 files: " in again.output
    listed = ragkube("documents", "list", "--json", "--url", again.url).stdout.splitlines()
    assert len(listed) == 400


def test_files_that_cannot_be_used_are_named_and_the_others_answer(
    start: Start, ragkube: Command, manifest: Write, folder: Path
) -> None:
    (folder / "empty.md").write_text("")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(256)))
    (folder / "picture.xyz").write_bytes(b"\x00\x01")
    (folder / "wrong.docx").write_text("this is no Word file")
    run = start(manifest(), "--documents", folder)
    assert "3 indexed" in run.output
    assert "4 skipped" in run.output
    for name, code in {
        "empty.md": "document-empty", "broken.pdf": "document-broken", "picture.xyz": "document-type-unsupported",
        "wrong.docx": "document-",
    }.items():  # fmt: skip
        assert any(name in line and code in line for line in run.lines), run.output
    assert "noon" in ragkube("ask", "When does the canteen open?", "--url", run.url).stdout
    status = ragkube("status", "--url", run.url)
    assert status.returncode == 0
    assert "empty.md" in status.stderr


@pytest.mark.proves("S6")
def test_settings_are_private_and_hold_no_secret(start: Start, manifest: Write, tmp_path: Path) -> None:
    spec = {
        "llm": {
            "type": "Anthropic",
            "anthropic": {"model": "m", "apiKeySecretRef": {"name": "llm", "key": "token"}},
        }
    }
    start(manifest(spec), ANTHROPIC_API_KEY="sk-very-secret")
    data = tmp_path / ".ragkube"
    settings = data / "settings.json"
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    holders = [path for path in data.rglob("*") if path.is_file() and b"sk-very-secret" in path.read_bytes()]
    assert holders == [data / "secrets" / "anthropic-api-key"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600


def test_a_missing_secret_is_explained(ragkube: Command, manifest: Write, tmp_path: Path) -> None:
    spec = {
        "llm": {
            "type": "Anthropic",
            "anthropic": {"model": "m", "apiKeySecretRef": {"name": "llm", "key": "token"}},
        }
    }
    result = ragkube("run", manifest(spec), "--port", "0")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {tmp_path}/rag.yaml refers to Secrets whose values are not on this machine; or set ANTHROPIC_API_KEY\n"
        f"  llm.api_key_file: write the value into {tmp_path}/.ragkube-secrets/llm/token\n"
    )


@pytest.mark.proves("S1")
def test_a_file_that_asks_for_keys_gets_them_here_too(
    start: Start, ragkube: Command, manifest: Write, folder: Path, tmp_path: Path
) -> None:
    run = start(manifest({"auth": {"mode": "ApiKey"}}), "--documents", folder)
    refused = ragkube("ask", "When are backups taken?", "--url", run.url)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Authentication required: ")
    key = tmp_path / ".ragkube" / "admin-key"
    assert f"--api-key-file {key}" in run.output
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (
        "two o'clock"
        in ragkube("ask", "When are backups taken?", "--url", run.url, "--api-key-file", key).stdout
    )
    by_variable = ragkube(
        "ask", "When are backups taken?", RAGKUBE_URL=run.url, RAGKUBE_API_KEY=key.read_text()
    )
    assert by_variable.returncode == 0


@pytest.mark.proves("K14")
def test_a_port_in_use_is_a_sentence(ragkube: Command, manifest: Write) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = ragkube("run", manifest(), "--port", str(port))
    assert result.returncode == 1
    assert result.stderr == (
        f"error: port {port} on 127.0.0.1 is in use; choose another with --port, or --port 0 for any free one\n"
    )


@pytest.mark.proves("K14")
def test_two_runs_on_one_directory_are_a_sentence(
    start: Start, ragkube: Command, manifest: Write, tmp_path: Path
) -> None:
    run = start(manifest())
    result = ragkube("run", manifest(), "--port", "0")
    assert result.returncode == 1
    assert result.stderr == (
        f"error: another `ragkube run` (process {run.process.pid}) uses the data directory {tmp_path}/.ragkube; "
        "end it, or choose another with --data\n"
    )
    assert get(f"{run.url}/readyz")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("/proc/ragkube/data", "it cannot be created there"),
        ("file", "it is a file"),
        ("file/below", "it is a file, or lies under one"),
    ],
)
@pytest.mark.proves("K14")
def test_a_data_directory_that_cannot_be_used_is_a_sentence(
    ragkube: Command, manifest: Write, tmp_path: Path, data: str, reason: str
) -> None:
    (tmp_path / "file").write_text("")
    result = ragkube("run", manifest(), "--port", "0", "--data", data)
    assert result.returncode == 1
    path = tmp_path / data
    assert (
        result.stderr
        == f"error: cannot write to the data directory {path}: {reason}; choose another with --data\n"
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of one page, which is full."""
    path = tmp_path / "tiny"
    path.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4k", "none", path], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("mounting a small file system needs root")
    (path / "full").write_bytes(b"x" * 4096)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.proves("K14")
def test_a_full_disk_is_a_sentence(ragkube: Command, manifest: Write, tiny: Path) -> None:
    result = ragkube("run", manifest(), "--port", "0", "--data", tiny)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: cannot write to the data directory {tiny}: no space is left; choose another with --data\n"
    )


@pytest.mark.proves("K14")
def test_a_read_only_file_system_is_a_sentence(ragkube: Command, manifest: Write, tiny: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    result = ragkube("run", manifest(), "--port", "0", "--data", tiny)
    assert result.returncode == 1
    assert "the file system is read-only; choose another with --data\n" in result.stderr


def test_a_folder_that_is_not_there_is_a_sentence(ragkube: Command, manifest: Write, tmp_path: Path) -> None:
    result = ragkube("run", manifest(), "--port", "0", "--documents", "nowhere")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: the folder {tmp_path}/nowhere of source 'documents' does not exist; name another with --documents\n"
    )


def test_other_objects_in_the_file_are_named(start: Start, manifest: Write) -> None:
    file = manifest()
    file.write_text(f"{file.read_text()}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: team}}\n")
    assert "Namespace team is for a cluster and not used here" in start(file).output


def test_an_external_service_that_is_away_is_named_and_does_not_block(start: Start, manifest: Write) -> None:
    spec: dict[str, Any] = {"cache": {"redis": {"type": "External", "external": {"nodes": ["127.0.0.1:1"]}}}}
    run = start(manifest(spec))
    assert "external Redis Cluster" in run.output
    ready = json.loads(get(f"{run.url}/readyz"))
    assert ready["dependencies"]["cache"]["up"] is False
