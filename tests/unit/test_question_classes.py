"""The built-in classes of questions, on questions as they are really asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from ragkube_api.services.ttl_classes import TtlClasses, compiled
from ragkube_api.settings import TtlClass
from ragkube_operator.crd.answers import DEFAULT_CLASSES
from ragkube_operator.crd.base import seconds

pytestmark = pytest.mark.proves("C5")

BUILT_IN: TtlClasses = compiled(
    [TtlClass(name=c["name"], ttl_seconds=seconds(c["ttl"]), words=c["words"]) for c in DEFAULT_CLASSES],
    86_400,
)

OURS = {
    "live-state": [
        "Is the payments service down right now?", "Which node is currently the leader?",
        "What is the status of the EU cluster?", "Are all replicas up? How many pods are running today?",
        "Is the nightly backup still running?", "Who is on call this week?",
    ],
    "troubleshooting": [
        "Why does the ingress return error 502?", "My pod is stuck in Pending, what now?",
        "The deployment fails with ImagePullBackOff", "kubelet won't start after the reboot",
        "How do I debug DNS that times out?", "CrashLoopBackOff after the upgrade: how do I fix it?",
        "I cannot mount the volume", "Permission denied when the job writes to S3",
    ],
    "configuration": [
        "How do I configure mutual TLS?", "Which flag turns on audit logs?", "How do I set up single sign-on?",
        "What is the default value of maxSurge?", "How do I enable the feature gate SidecarContainers?",
        "Which environment variable sets the proxy?", "How can I raise the memory limit of a container?",
    ],
    "documentation": [
        "What is a PodDisruptionBudget?", "How does leader election work?",
        "Explain the difference between a Deployment and a StatefulSet", "What are finalizers?",
        "Give me an overview of the storage layer", "Why do we use Raft?",
    ],
    "default": ["Which team owns the billing service?", "When was version 1.30 released?", "List the regions"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "question"), [(n, q) for n, asked in OURS.items() for q in asked])
def test_an_operator_s_question_is_of_the_class_a_person_would_say(name: str, question: str) -> None:
    assert BUILT_IN.of(question).name == name


def test_general_questions_are_seldom_taken_for_live_state_or_trouble(test_data: Path) -> None:
    """A wrong class costs cache hits: real questions about stable facts must not get short TTLs."""
    xquad = json.loads((test_data / "xquad" / "xquad.en.json").read_text())["data"]
    asked = [q["question"] for entry in xquad for part in entry["paragraphs"] for q in part["qas"]]
    for file in sorted((test_data / "clapnq").glob("*.jsonl")):
        asked += [json.loads(line)["input"] for line in file.read_text().splitlines()]

    found = Counter(BUILT_IN.of(question).name for question in asked)

    assert len(asked) > 1700
    assert found["live-state"] / len(asked) < 0.01
    assert found["troubleshooting"] / len(asked) < 0.02
    assert found["documentation"] > found["configuration"]
