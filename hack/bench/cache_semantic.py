"""Paraphrases for ``bench.cache``: a server that may serve them, and questions in wordings that it has or has not seen."""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Iterator

from bench.cache_load import Target
from bench.cache_servers import World
from support.api import metric_in
from support.semantic import ENOUGH, document, paraphrase, question

_MOST_A_SECOND = 2_000
_POLL_SECONDS = 1.0
"""After that long, what was answered can be proposed."""


class Paraphrases:
    """Serves paraphrases: it has compared as many as an error budget of 20 % takes, and goes on auditing 5 % of them."""

    def __init__(self, world: World) -> None:
        self.server = world.ragkube("semantic", local=10_000, semantic={"max_error_rate": 0.2}).start()
        self._wordings = _wordings()
        for number, subject in enumerate(ENOUGH):
            self.server.call(
                "PUT",
                f"/v1/documents/{subject}",
                document(subject, number).encode(),
                Content_Type="text/plain",
            )
        self._learn()
        self._seen = self._next(100)
        for _ in range(2):
            for body in self._seen:
                receipt = json.loads(self.server.ask(body))["cache"]
                assert receipt.get("kind") == "semantic", receipt
        self._before: dict[str, float] = {}

    def seen(self) -> Target:
        """Paraphrases that were asked before."""
        return self.server.target(self._seen)

    def unseen(self, seconds: float) -> Target:
        """For one run: each wording is new to the server."""
        return self.server.target(self._next(int(seconds * _MOST_A_SECOND)))

    def served(self) -> dict[str, float]:
        """What became of paraphrases since the last call: served (judged now), recalled (judged before), misses."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/metrics", timeout=60) as found:
            text = found.read().decode()
        now = {
            outcome: metric_in(text, "rag_semantic_proposals_total", outcome=outcome)
            for outcome in ("served", "recalled", "withheld")
        }
        now["made"] = metric_in(text, "rag_cache_flights_total", role="led")
        since = {name: count - self._before.get(name, 0.0) for name, count in now.items()}
        self._before = now
        return since

    def _next(self, count: int) -> list[bytes]:
        found = list(itertools.islice(self._wordings, count))
        assert len(found) == count, "there are no more wordings: fewer rounds, or fewer seconds"
        return found

    def _learn(self) -> None:
        """Paraphrases whose own answers are compared with what would have been served."""
        for wording in (question, paraphrase):
            for subject in ENOUGH:
                self.server.ask(_body(wording(subject)))
            time.sleep(_POLL_SECONDS)
        end = time.monotonic() + 30
        for body in self._wordings:
            if json.loads(self.server.ask(body))["cache"].get("kind") == "semantic":
                return
            assert time.monotonic() < end, "no paraphrase is served"
            time.sleep(0.2)


def _wordings() -> Iterator[bytes]:
    """Paraphrases of the cached questions that differ from each other in capital letters: each one is a question of its own."""
    words = [[(word, word.title()) for word in paraphrase(subject).split()] for subject in ENOUGH]
    texts = (
        map(" ".join, itertools.product(*(dict.fromkeys(pair) for pair in subject))) for subject in words
    )
    for wording in itertools.islice(zip(*texts, strict=True), 1, None):  # the first has been asked
        yield from map(_body, wording)


def _body(text: str) -> bytes:
    return json.dumps({"question": text}).encode()
