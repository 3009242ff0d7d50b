"""``kubectl ragkube status``: what a RagDeployment says of itself, what that means, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from ragkube_operator.cli_kube import Kubectl
from ragkube_operator.cli_output import Output
from ragkube_operator.client import JSON
from ragkube_operator.explanations import EXPLANATIONS
from ragkube_operator.status import Reason

_EVENTS = 5
_PARTS = (("API", "api"), ("workers", "workers"), ("cache", "cache"), ("vector store", "vectorStore"))


def status(
    kubectl: Kubectl, output: Output, found: JSON, *, as_json: bool, now: datetime | None = None
) -> bool:
    """Print it; False when the deployment is not Ready."""
    conditions = found.get("status", {}).get("conditions", [])
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    if as_json:
        output.console.out(json.dumps(found.get("status") or {}, indent=2), highlight=False)
        return ready
    meta = found["metadata"]
    state = ("ready", "green") if ready else ("not ready", "red")
    output.pairs((f"{meta['name']} in {meta['namespace']} is ", ""), state)
    for line in summary(found):
        output.line(line)
    if not conditions:
        output.line("No operator has seen it yet: is one at work? helm test ragkube -n ragkube-system")
        return False
    output.line()
    rows = [row(item, now or datetime.now(UTC)) for item in conditions]
    output.table(("CONDITION", "STATE", "REASON", "FOR", "MESSAGE"), rows)
    _tell_steps(output, found)
    _tell_events(kubectl, output, meta)
    return ready


def summary(found: JSON) -> Iterator[str]:
    """Address, pods, version."""
    told = found.get("status") or {}
    if told.get("url"):
        yield told["url"]
    parts = [
        f"{label} {told[key]['summary']}" for label, key in _PARTS if (told.get(key) or {}).get("summary")
    ]
    if parts:
        yield ", ".join(parts)
    seen, generation = told.get("observedGeneration", 0), found["metadata"].get("generation", 0)
    if told and seen < generation:
        yield f"The operator has not looked at the last change yet (generation {generation}, seen {seen})"


def row(item: JSON, now: datetime) -> tuple[str, ...]:
    """A condition as a line of the table."""
    since = datetime.fromisoformat(item["lastTransitionTime"])
    return item["type"], item["status"], item["reason"], age((now - since).total_seconds()), item["message"]


def age(seconds: float) -> str:
    """``45s``, ``12m``, ``5h``, ``3d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


def steps(found: JSON) -> list[tuple[str, str, str]]:
    """For each condition that is not as it should be: its name, what it means, what to do."""
    result = []
    for item in found.get("status", {}).get("conditions", []):
        good = "False" if item["type"] in {"Stalled", "Reconciling"} else "True"
        explained = EXPLANATIONS.get(Reason(item["reason"])) if item["reason"] in set(Reason) else None
        summed_up = item["type"] in {"Ready", "Reconciling"}  # the part's own condition says it
        if explained is not None and item["status"] != good and not summed_up:
            result.append((item["type"], explained.meaning, explained.step))
    return result


def _tell_steps(output: Output, found: JSON) -> None:
    told = steps(found)
    if not told:
        return
    output.line()
    output.line("What to do")
    for name, meaning, step in told:
        output.pairs((f"  {name}: ", "bold"), (meaning.replace("`", ""), ""))
        if step:
            output.line(f"    next: {step.replace('`', '')}")
    for command in hints(found, {name for name, _, _ in told}):
        output.line(f"    $ {command}")


def hints(found: JSON, conditions: set[str]) -> list[str]:
    """Commands that show more."""
    meta = found["metadata"]
    where = f"-n {meta['namespace']}"
    components = {
        "CacheReady": "redis",
        "VectorStoreReady": "weaviate",
        "APIReady": "api",
        "SourcesReady": "worker",
    }
    label = f"-l app.kubernetes.io/instance={meta['name']},app.kubernetes.io/component="
    result = [
        f"kubectl get pods {where} {label}{component}"
        for name, component in components.items()
        if name in conditions
    ]
    if conditions & {"APIReady", "SourcesReady"}:
        result.append(f"kubectl ragkube logs {meta['name']} {where}")
    return result


def _tell_events(kubectl: Kubectl, output: Output, meta: JSON) -> None:
    chosen = f"involvedObject.uid={meta['uid']},type=Warning"
    events = kubectl.json("events", "--field-selector", chosen)["items"]
    items = sorted(events, key=lambda item: str(item.get("lastTimestamp") or ""))[-_EVENTS:]
    if items:
        output.line()
        output.line("Last warnings")
        output.table(
            ("WHEN", "REASON", "MESSAGE"),
            [(item.get("lastTimestamp") or "", item["reason"], item["message"]) for item in items],
        )
