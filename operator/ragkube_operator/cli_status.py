"""``ragkube status``: is it healthy, and how far are the sources."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ragkube_operator.cli_documents import report_failures
from ragkube_operator.cli_output import Output, plural
from ragkube_operator.client import JSON, ApiError, Client


def status(client: Client, output: Output, *, as_json: bool) -> bool:
    """Print health and sources; False when the API does not serve."""
    ready, health = client.ready()
    try:
        sources = client.sources()
    except ApiError as error:
        output.warn(f"how far the sources are is not known: {error.message}")
        sources = []
    if as_json:
        body = {"url": client.url, "ready": ready, "health": health, "sources": sources}
        output.console.out(json.dumps(body, indent=2, ensure_ascii=False), highlight=False)
        return ready
    state = ("ready", "green") if ready else ("not ready", "red")
    output.pairs((f"{client.url} is ", ""), state)
    rows = dependency_rows(health)
    if rows:
        output.line()
        output.table(("DEPENDENCY", "STATE", "DETAIL"), rows)
    if sources:
        output.line()
        output.table(
            ("SOURCE", "STATE", "FILES", "INDEXED", "UNCHANGED", "DELETED", "FAILED"), map(_row, sources)
        )
        report_failures(output, failures(sources))
    return ready


def dependency_rows(health: JSON) -> list[tuple[str, str, str]]:
    """What /readyz says of each dependency."""
    found = health.get("dependencies") or {}
    return [(name, *_dependency(value)) for name, value in sorted(found.items())]


def _dependency(value: object) -> tuple[str, str]:
    if isinstance(value, Mapping):
        state = value.get("status") or value.get("state") or ("up" if value.get("up") else "down")
        return str(state), str(value.get("detail") or "")
    return {True: "up", False: "down"}.get(value, str(value)) if isinstance(value, bool) else str(value), ""


def _row(source: JSON) -> tuple[str, ...]:
    counts = (str(source[key]) for key in ("indexed", "unchanged", "deleted"))
    files = f"{source['done']} of {source['total']}"
    return str(source["name"]), str(source["state"]), files, *counts, str(len(source["failures"]))


def failures(sources: list[JSON]) -> dict[str, str]:
    """Files that were skipped, with the reason of each; a source that failed as a whole too."""
    found = {
        f"{entry['path']}": f"{entry['code']}: {entry['detail']}"
        for source in sources
        for entry in source["failures"]
    }
    found |= {source["name"]: str(source["detail"]) for source in sources if source["state"] == "failed"}
    return found


def sentence(sources: list[JSON]) -> str:
    """``12 documents: 3 indexed, 9 unchanged``, with what went and what failed when there is any."""
    total = {
        key: sum(int(source[key]) for source in sources)
        for key in ("total", "indexed", "unchanged", "deleted")
    }
    failed = sum(len(source["failures"]) for source in sources)
    text = f"{plural(total['total'], 'file')}: {total['indexed']:,} indexed, {total['unchanged']:,} unchanged"
    text += f", {total['deleted']:,} deleted" if total["deleted"] else ""
    return text + (f", {failed:,} skipped" if failed else "")
