"""Every command on the pages exists, with every option that it is given, and every file that it names."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support import docs_commands
from support.command import REPOSITORY, environment
from support.docs_commands import PAGES
from support.helm import helm
from support.processes import tool

_ASSIGNMENT = re.compile(r"^[A-Z_]+=")
_FILE = re.compile(r"^(manifests|charts|docs|hack)/")


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command line after a prompt, without redirections and what it is piped into."""
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^\$ ((?:.*\\\n)*.*)", block, re.MULTILINE):
            inner = re.match(r"[A-Z_]+=\$\((.*)\)$", line)
            text = (inner[1] if inner else line).replace("\\\n", " ").partition(" | ")[0]
            opened = text.count("'") % 2  # a text of several lines: what comes after the first is no option
            words = shlex.split(text.removesuffix("&") + "'" * opened, comments=True)
            yield [word for word in words if not _ASSIGNMENT.match(word)] or words


def found() -> list[tuple[Path, list[str]]]:
    return [(page, words) for page in PAGES for words in commands(page)]


@functools.cache
def help_of(*command: str) -> str:
    """What ``--help`` of a command prints; fails when there is no such command."""
    done = subprocess.run(
        [tool(command[0]), *command[1:], *(() if command[-1] == "options" else ("--help",))],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def subcommand(words: list[str]) -> tuple[str, ...]:
    """``kubectl rollout status``, ``helm get values``: the words that name what is run."""
    if words[:3] == ["kubectl", "create", "secret"]:
        return tuple(words[:4])
    nested = {"kubectl rollout", "kubectl create", "helm get"}
    return tuple(words[: 3 if " ".join(words[:2]) in nested else 2])


# commands of ragkube are in test_docs.py
CHECKED = [
    (page, words)
    for page, words in found()
    if words[0] in {"helm", "kubectl"} and words[:2] != ["kubectl", "ragkube"]
]


@pytest.mark.parametrize(
    ("page", "words"),
    CHECKED,
    ids=lambda value: value.name if isinstance(value, Path) else " ".join(value)[:60],
)
def test_the_command_and_its_options_exist(page: Path, words: list[str]) -> None:
    command = subcommand(words)
    text = help_of(*command)
    if command[0] == "kubectl":
        text += help_of("kubectl", "options")
    for word in words[2:]:
        option = word.partition("=")[0]
        if re.match(r"^--[a-z]", option):
            assert re.search(rf"{re.escape(option)}(?![\w-])", text), f"{' '.join(command)} has no {option}"
        elif re.match(r"^-[a-z]$", option):
            assert re.search(rf"(^|[\s,]){option}\b", text), f"{' '.join(command)} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_file_and_target_that_a_command_names_exists(page: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for words in commands(page):
        for word in words:
            assert not _FILE.match(word) or (REPOSITORY / word).exists(), f"{' '.join(words)}: no {word}"
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), words


INSTALLS = [words for _, words in CHECKED if words[0] == "helm" and words[1] in {"install", "upgrade"}]
NOT_OF_TEMPLATE = {"--wait", "--create-namespace", "--take-ownership", "--force-conflicts", "--install"}


@pytest.mark.proves("K11")
def test_what_helm_is_told_to_install_renders() -> None:
    assert len(INSTALLS) > 5
    for words in INSTALLS:
        options = [word for word in words[2:] if word not in NOT_OF_TEMPLATE]
        arguments = [str(REPOSITORY / word) if word.startswith("charts/") else word for word in options]
        assert list(yaml.safe_load_all(helm("template", *arguments)))


def test_every_command_for_a_cluster_is_run_there_or_says_why_not() -> None:
    """``tests/cluster`` runs the first two lists; a command that is new on a page, or gone from it, belongs there too."""
    lists = [*docs_commands.ON_A_PLATFORM, *docs_commands.WITH_HELM, *docs_commands.NOT_RUN]
    assert sorted(lists) == sorted(docs_commands.for_a_cluster())
