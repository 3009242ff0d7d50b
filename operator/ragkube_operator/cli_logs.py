"""``kubectl ragkube logs``: the lines of every pod of a deployment in one stream, as a person reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ragkube_operator.cli_kube import Kubectl, selector
from ragkube_operator.cli_output import CliError, Output

COMPONENTS = ("api", "worker", "redis", "weaviate")
_STYLES = {"warning": "yellow", "error": "bold red", "critical": "bold red"}
_PREFIX = re.compile(r"^\[pod/([^/\]]+)/([^\]]+)\] (.*)$")
_HIDDEN = frozenset({"event", "level", "timestamp", "logger"})


def logs(
    kubectl: Kubectl,
    output: Output,
    name: str,
    components: tuple[str, ...],
    options: tuple[str, ...],
    *,
    follow: bool,
) -> None:
    """Print them: sorted by time, or as they come.

    Raises:
        CliError: there is no such pod, or kubectl refuses.
    """
    command = ("logs", "-l", selector(name, *components), "--prefix", "--max-log-requests=50", *options)
    if follow:
        for line in kubectl.follow(*command, "--follow"):
            _show(output, name, line.rstrip("\n"))
        return
    text = kubectl.run(*command)
    if not text:
        raise CliError(
            f"no pods or no lines of {', '.join(components)} of {name}; kubectl ragkube status {name} says more"
        )
    for line in merged(text.splitlines()):
        _show(output, name, line)


def merged(lines: Iterable[str]) -> list[str]:
    """In order of their timestamps; a line without one stays behind the line before it."""
    stamped: list[tuple[str, str]] = []
    last: dict[str, str] = {}
    for line in lines:
        pod, record, _ = split(line)
        last[pod] = str((record or {}).get("timestamp") or last.get(pod, ""))
        stamped.append((last[pod], line))
    return [line for _, line in sorted(stamped, key=lambda pair: pair[0])]


def split(line: str) -> tuple[str, dict[str, Any] | None, str]:
    """The pod, the record when the line is one, and the text."""
    match = _PREFIX.match(line)
    pod, text = (match[1], match[3]) if match else ("", line)
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    return pod, record if isinstance(record, dict) else None, text


def readable(name: str, line: str) -> tuple[str, str]:
    """``time pod level event key=value…``, and its style."""
    pod, record, text = split(line)
    short = pod.removeprefix(f"{name}-")
    if record is None:
        return f"{short}  {text}" if short else text, ""
    level = str(record.get("level", "info"))
    moment = str(record.get("timestamp", ""))[11:23]
    fields = " ".join(_fields(record))
    return f"{moment} {short} {level:<7} {record.get('event', '')} {fields}".rstrip(), _STYLES.get(level, "")


def _fields(record: dict[str, Any]) -> Iterator[str]:
    for key, value in record.items():
        if key not in _HIDDEN and value is not None:
            yield f"{key}={value if isinstance(value, str | int | float) else json.dumps(value)}"


def _show(output: Output, name: str, line: str) -> None:
    text, style = readable(name, line)
    output.line(text, style=style)
