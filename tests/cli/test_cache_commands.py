"""``ragkube cache`` against a running API."""

from __future__ import annotations

import http.server
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.command import Command, Run

pytestmark = pytest.mark.proves("C8")

MOON, SUN = "How far is the moon?", "How hot is the sun?"


def test_questions_of_a_file_are_cached_listed_shown_and_disowned(
    ragkube: Command, shared: Run, tmp_path: Path
) -> None:
    here = {"RAGKUBE_URL": shared.url, "RAGKUBE_TENANT": "files"}
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "moon.txt").write_text("The moon is 384,400 kilometres away.")
    ragkube("ingest", documents, **here)
    file = tmp_path / "questions.txt"
    file.write_text(f'# often asked\n\n{MOON}\n{{"question": "{SUN}", "k": 2, "tags": ["space"]}}\n')

    first, second = ragkube("cache", "warm", file, **here), ragkube("cache", "warm", file, **here)

    assert (first.returncode, first.stdout.splitlines()[-1]) == (
        0, "2 answers cached, 0 cached before, 0 not cached",
    )  # fmt: skip
    assert second.stdout.splitlines()[-1] == "0 answers cached, 2 cached before, 0 not cached"
    assert "cache hit" in ragkube("ask", MOON, **here).stdout
    listed = ragkube("cache", "list", **here).stdout.splitlines()
    assert listed[0].split() == ["ID", "CLASS", "DOCUMENTS", "STORED", "(UTC)", "QUESTION"]
    assert any(line.endswith(MOON) for line in listed)
    entries = [json.loads(line) for line in ragkube("cache", "list", "--json", **here).stdout.splitlines()]
    moon = next(entry for entry in entries if entry["question"] == MOON)
    shown = json.loads(ragkube("cache", "show", moon["id"], **here).stdout)
    assert "384,400" in shown["answer"]
    gone = ragkube("cache", "disown", shown["id"], **here)
    assert (gone.returncode, gone.stdout) == (0, f"disowned {shown['id']}\n")
    assert "cache miss" in ragkube("ask", MOON, **here).stdout
    again = ragkube("cache", "disown", shown["id"], **here)
    assert (again.returncode, again.stderr) == (
        1, f"error: Not found: There is no cached answer '{shown['id']}'.\n",
    )  # fmt: skip
    cleared = ragkube("cache", "clear", "--tag", "space", **here)
    assert (cleared.returncode, cleared.stdout) == (0, "1 value removed\n")


def test_the_most_asked_questions_come_back_after_clearing(ragkube: Command, shared: Run) -> None:
    here = {"RAGKUBE_URL": shared.url, "RAGKUBE_TENANT": "asked"}
    assert ragkube("cache", "asked", **here).stdout == "Nothing was asked yet.\n"
    for _ in range(2):
        ragkube("ask", MOON, **here)
    ragkube("ask", SUN, "--k", "3", **here)
    rows = [line.split(maxsplit=1) for line in ragkube("cache", "asked", **here).stdout.splitlines()[1:]]
    assert [(count, rest.rstrip()[: len(MOON)].rstrip()) for count, rest in rows] == [("2", MOON), ("1", SUN)]
    assert '{"k": 3}' in rows[1][1]
    ragkube("cache", "clear", "--all", **here)
    assert ragkube("cache", "list", **here).stdout == (
        "No answers are cached. Fill the cache with `ragkube cache warm`.\n"
    )
    warmed = ragkube("cache", "warm", "--most-asked", "5", **here)
    assert warmed.stdout.splitlines()[-1] == "2 answers cached, 0 cached before, 0 not cached"


def test_statistics_are_for_people_and_for_programs(ragkube: Command, shared: Run) -> None:
    here = {"RAGKUBE_URL": shared.url, "RAGKUBE_TENANT": "counted"}
    for _ in range(2):
        ragkube("ask", MOON, **here)
    printed = ragkube("cache", "stats", **here).stdout
    assert "the cache is on; tenant counted" in printed
    assert next(line.split()[:3] for line in printed.splitlines() if line.startswith("l1")) == [
        "l1", "answer", "1",
    ]  # fmt: skip
    assert re.search(r"deployment \(1 replica\) since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC, ", printed)
    assert printed.count("look-ups were hits") == 2
    found = json.loads(ragkube("cache", "stats", "--json", **here).stdout)
    assert (found["tenant"], found["levels"][0]["entries"]) == ("counted", 1)
    for counter in ("hits", "misses"):
        assert found["deployment"][counter] == found["replica"][counter], "there is one"
    rows = [line.split() for line in printed.splitlines() if line.startswith("hits") and "exact" in line]
    assert any(row[-1] != "0" for row in rows)
    assert all(row[-1] == row[-2] for row in rows), "the same, as there is one"


@contextmanager
def without_the_deployment(url: str) -> Iterator[str]:
    """The statistics as an API told them that did not know those of the deployment."""

    class Earlier(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urllib.request.urlopen(url + self.path, timeout=30) as response:
                body = json.load(response)
            del body["deployment"]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Earlier) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_statistics_of_an_earlier_api_are_those_of_the_replica(ragkube: Command, shared: Run) -> None:
    ragkube("ask", MOON, "--url", shared.url)
    with without_the_deployment(shared.url) as earlier:
        result = ragkube("cache", "stats", "--url", earlier)
    assert (result.returncode, result.stderr) == (0, "")
    assert "deployment" not in result.stdout.lower()
    assert result.stdout.count("look-ups were hits") == 1
    header = next(line for line in result.stdout.splitlines() if line.startswith("COUNTER"))
    assert header.split() == ["COUNTER", "OF", "THIS", "REPLICA"]
    assert any(line.startswith("misses") and line.split()[-1] != "0" for line in result.stdout.splitlines())


def test_a_question_that_cannot_be_asked_is_named(ragkube: Command, shared: Run, tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    file.write_text('good question\n{"question": "what?", "k": 99}\n')
    result = ragkube("cache", "warm", file, "--url", shared.url)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == "error: Invalid request"
    assert result.stderr.splitlines()[1].startswith("  questions.1.k: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("clear",), "say what to clear: --tag, --document, --question, --kind, or --all"),
        (
            ("clear", "--all", "--tag", "a"),
            "say what to clear: --tag, --document, --question, --kind, or --all",
        ),
        (("warm",), "name a FILE with questions, or give --most-asked N"),
        (("warm", "none"), "cannot read none: No such file or directory"),
    ],
)
def test_wrong_use_is_a_sentence(ragkube: Command, arguments: tuple[str, ...], sentence: str) -> None:
    result = ragkube("cache", *arguments)
    assert (result.returncode, result.stderr) == (2, f"error: {sentence}\n")
