"""The promise of the cache on a cluster: while pods die and roll, no answer is older than the last finished edit."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

import pytest

from cluster.testbed.client import Http, Kubectl, KubectlError, Namespaces, Response, wait_for
from support.platforms import admin_key, is_ready, ready, redis_pods, resource

pytestmark = pytest.mark.level("nodes")
NAME = "chaos"
TRAINS = 4
ASKERS = 4
_VERSION = re.compile(r"platform (\d+)")


@dataclass
class Train:
    """One document that is edited over and over: its platform number counts the edits."""

    number: int
    begun: int = 0
    ended: int = 0

    @property
    def path(self) -> str:
        return f"/v1/documents/train-{self.number}.md"

    @property
    def question(self) -> dict[str, Any]:
        return {"question": f"From which platform does train {self.number} leave?"}

    @property
    def text(self) -> bytes:
        return f"# Train {self.number}\n\nTrain {self.number} leaves from platform {self.begun}.\n".encode()


@dataclass
class Traffic:
    """Askers and one editor per document, until it is stopped; every deviation is written down."""

    http: Http
    url: str
    headers: dict[str, str]
    trains: list[Train] = field(default_factory=lambda: [Train(number) for number in range(TRAINS)])
    stop: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    questions: int = 0
    hits: int = 0
    edits: int = 0
    retried: int = 0
    reconnected: int = 0

    def edit(self, train: Train) -> None:
        """One edit; a refusal with Retry-After is tried again, as the API asks for."""
        train.begun += 1
        while True:
            answer = self._send("PUT", train.path, content=train.text, kind="text/markdown")
            if answer.status in {200, 201}:
                train.ended = train.begun
                self.edits += 1
                return
            if answer.status != 503 or "retry-after" not in {name.lower() for name in answer.headers}:
                self.wrong.append(f"edit: {answer.status} {answer.text[:200]}")
                return
            self.retried += 1
            time.sleep(0.2)

    def ask(self, train: Train) -> None:
        """One question; the answer may be of any edit that had not been replaced when it was asked."""
        oldest = train.ended
        answer = self._send("POST", "/v1/query", content=json.dumps(train.question).encode())
        newest = train.begun
        self.questions += 1
        if answer.status != 200:
            self.wrong.append(f"question: {answer.status} {answer.text[:200]}")
            return
        body = answer.json()
        self.hits += body["cache"]["status"] == "hit"
        found = _VERSION.search(body["answer"])
        if found is None or not oldest <= int(found[1]) <= newest:
            self.wrong.append(f"{oldest}..{newest} expected: {body['answer']!r} {body['cache']}")

    def _send(self, method: str, path: str, *, content: bytes, kind: str = "application/json") -> Response:
        """A connection that is refused or reset before the answer is used once more, as any client does."""
        headers = {**self.headers, "content-type": kind}
        try:
            return self.http(method, self.url + path, content=content, headers=headers, timeout=30)
        except (OSError, HTTPException):
            self.reconnected += 1
            return self.http(method, self.url + path, content=content, headers=headers, timeout=30)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Askers ask all the time, editors pause, so that answers are cached between edits."""
        with ThreadPoolExecutor(ASKERS + TRAINS) as pool:
            work = [pool.submit(self._ask_on, asker) for asker in range(ASKERS)]
            work += [pool.submit(self._edit_on, train) for train in self.trains]
            try:
                yield
            finally:
                self.stop.set()
        for task in work:
            task.result()

    def _ask_on(self, asker: int) -> None:
        for number in itertools.count(asker):
            if self.stop.is_set():
                return
            self.ask(self.trains[number % TRAINS])

    def _edit_on(self, train: Train) -> None:
        while not self.stop.wait(1.5):
            self.edit(train)


@pytest.fixture(scope="module")
def space(operator: None, kubectl: Kubectl, namespaces: Namespaces) -> Iterator[str]:
    """A platform with three API pods and a managed Redis Cluster, Ready."""
    namespace = namespaces.create("chaos")
    kubectl.apply(resource(NAME, api={"replicas": 3}), namespace=namespace)
    ready(kubectl, namespace, NAME)
    yield namespace
    namespaces.delete(namespace)


@pytest.fixture
def traffic(space: str, kubectl: Kubectl, http: Http) -> Traffic:
    headers = {"Authorization": f"Bearer {admin_key(kubectl, space, NAME)}"}
    made = Traffic(http, f"http://{NAME}.{space}", headers)
    for train in made.trains:
        made.edit(train)
    return made


def api_pods(kubectl: Kubectl, space: str) -> list[dict[str, Any]]:
    label = f"app.kubernetes.io/component=api,app.kubernetes.io/instance={NAME}"
    found: list[dict[str, Any]] = kubectl.json("get", "pods", "-n", space, "-l", label)["items"]
    return found


def kill_redis_primary(kubectl: Kubectl, space: str) -> Callable[[], bool]:
    victims = [pod for pod in redis_pods(kubectl, space) if _role(kubectl, space, pod) == "master"][:1]
    names = [pod["metadata"]["name"] for pod in victims]
    assert names
    kubectl("delete", "pod", *names, "-n", space, "--grace-period=0", "--force", "--wait=false")
    gone = {pod["metadata"]["uid"] for pod in victims}

    def healed() -> bool:
        found = redis_pods(kubectl, space)
        fresh = not gone & {pod["metadata"]["uid"] for pod in found}
        return fresh and sum(map(is_ready, found)) == 6

    return healed


def _role(kubectl: Kubectl, space: str, pod: dict[str, Any]) -> str:
    command = "read -r REDISCLI_AUTH < /etc/ragkube-auth/password; export REDISCLI_AUTH; redis-cli role"
    lines = kubectl("exec", pod["metadata"]["name"], "-n", space, "--", "sh", "-c", command).splitlines()
    return lines[0] if lines else ""


def kill_api_pod(kubectl: Kubectl, space: str) -> Callable[[], bool]:
    victim = api_pods(kubectl, space)[0]["metadata"]
    kubectl("delete", "pod", victim["name"], "-n", space, "--grace-period=0", "--force", "--wait=false")
    return lambda: _three_ready(kubectl, space, {victim["uid"]})


def roll_the_api(kubectl: Kubectl, space: str) -> Callable[[], bool]:
    before = {pod["metadata"]["uid"] for pod in api_pods(kubectl, space)}
    change = json.dumps({"spec": {"api": {"logLevel": "Warning"}}})
    kubectl("patch", "ragd", NAME, "-n", space, "--type=merge", "-p", change)
    return lambda: _three_ready(kubectl, space, before)


def _three_ready(kubectl: Kubectl, space: str, gone: set[str]) -> bool:
    found = api_pods(kubectl, space)
    fresh = not gone & {pod["metadata"]["uid"] for pod in found}
    return fresh and len(found) == 3 and all(map(is_ready, found))


@pytest.mark.proves("C4", "C2", "R5")
@pytest.mark.parametrize("event", [kill_redis_primary, kill_api_pod, roll_the_api])
def test_nothing_stale_and_nothing_failed_while_it_happens(
    traffic: Traffic, kubectl: Kubectl, space: str, event: Callable[[Kubectl, str], Callable[[], bool]]
) -> None:
    with traffic.running():
        wait_for(lambda: traffic.hits > 20, 60, what="a warm cache")
        settled = event(kubectl, space)
        wait_for(settled, 180, what="the pods", ignore=(KubectlError,))
        after = traffic.hits
        wait_for(lambda: traffic.hits > after + 20, 60, what="cached answers again")
    print(
        f"\n{event.__name__}: {traffic.questions} questions, {traffic.hits} hits, {traffic.edits} edits, "
        f"{traffic.retried} edits retried, {traffic.reconnected} connections lost, {len(traffic.wrong)} wrong"
    )
    assert traffic.wrong == []
    # a pod that is killed takes its connections along; one that is told to end finishes them
    assert traffic.reconnected == 0 or event is not roll_the_api
