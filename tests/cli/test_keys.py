"""``ragkube keys new``: a key is made, put into the Secret, and opens what its role allows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from support.command import Command, Start, Write

pytestmark = pytest.mark.proves("S1")


def test_a_new_key_opens_what_its_role_allows(
    ragkube: Command, start: Start, manifest: Write, folder: Path, tmp_path: Path
) -> None:
    keys = tmp_path / ".ragkube-secrets" / "clients" / "keys"
    keys.parent.mkdir(parents=True)
    made = ragkube("keys", "new", "--name", "app", "--role", "reader", "--tenant", "team-a", "--file", keys)
    assert made.returncode == 0, made.stderr
    reads = made.stdout.strip()
    assert reads.startswith("ragkube_")
    assert reads not in keys.read_text()
    run = start(manifest({"auth": {"apiKeysSecretRef": {"name": "clients", "key": "keys"}}}))

    def ask(key: str) -> str:
        done = ragkube("ask", "When are backups taken?", "--url", run.url, RAGKUBE_API_KEY=key)
        return done.stdout + done.stderr

    assert "I don't know" in ask(reads)
    refused = ragkube("ingest", folder, "--url", run.url, RAGKUBE_API_KEY=reads)
    assert (refused.returncode, refused.stderr) == (
        1, "error: Not allowed: This needs the role 'writer'; yours is 'reader'.\n",
    )  # fmt: skip
    assert "The API key is not known" in ask("ragkube_other")

    writes = ragkube(
        "keys", "new", "--name", "sync", "--role", "writer", "--tenant", "team-a", "--file", keys
    ).stdout.strip()
    done = ragkube("ingest", folder, "--url", run.url, RAGKUBE_API_KEY=writes)
    assert done.returncode == 0, done.stderr
    assert "two o'clock" in ask(reads)


def test_without_a_file_the_hashed_line_is_printed(ragkube: Command) -> None:
    arguments = ("keys", "new", "--name", "ops", "--role", "admin", "--tier", "gold")
    made = ragkube(*arguments)
    key, line = made.stdout.splitlines()
    wanted = {
        "name": "ops",
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "role": "admin",
        "tier": "gold",
    }
    assert json.loads(line) == wanted
    assert "spec.auth.apiKeysSecretRef" in made.stderr
    other = json.loads(ragkube(*arguments, "--json").stdout)
    assert other["key"] != key
    assert json.loads(other["line"])["sha256"] == hashlib.sha256(other["key"].encode()).hexdigest()


def test_a_line_is_added_below_one_without_an_end(ragkube: Command, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# mine")
    ragkube("keys", "new", "--name", "a", "--role", "reader", "--file", keys)
    comment, line = keys.read_text().splitlines()
    assert (comment, json.loads(line)["name"]) == ("# mine", "a")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--name", "A b", "--role", "reader"), "--name 'A b': at most 63 of a-z, 0-9, '-' and '.'"),
        (
            ("--name", "a", "--role", "reader", "--tenant", "a_b"),
            "--tenant 'a_b': at most 63 of a-z, 0-9 and inner '-'",
        ),
        (
            ("--name", "a", "--role", "reader", "--file", "none/keys"),
            "cannot add the key's line to none/keys: No such file or directory",
        ),
    ],
)
def test_wrong_use_is_a_sentence(ragkube: Command, arguments: tuple[str, ...], sentence: str) -> None:
    result = ragkube("keys", "new", *arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {sentence}\n")
