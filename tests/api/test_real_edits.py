"""The real edits of a corpus, replayed under query load: no stale answer, and every answer they leave alone stays."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from bench import datasets
from ragkube_api.services import evidence
from ragkube_api.services.answer_codec import open_entry
from ragkube_api.services.making import Question
from ragkube_api.services.retrieval import Wanted
from support.api import RunningApp, api_process, running_app, settings_in
from support.redis import RedisServers
from support.weaviate import WeaviateServer

K, ALPHA = 5, 0.5
ASKERS = 2
STORED_SECONDS = 5
Documents = tuple[tuple[str, str], ...]


class Found(NamedTuple):
    """What is retrieved for a question now."""

    evidence: bytes
    documents: Documents

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.documents}


class Replay:
    """Applies edits to a corpus while questions are asked, and judges every answer by a retrieval of its own.

    ``replicas`` are edited and asked, one or the other; the application itself looks what should be and what is stored.
    """

    def __init__(
        self, app: RunningApp, replicas: Sequence[RunningApp], questions: Sequence[str], seed: int
    ) -> None:
        self.app = app
        self.replicas = replicas
        self.questions = list(questions)
        self.dice = random.Random(seed)
        self.before: dict[str, Found] = {}
        self.ids: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.versions: dict[str, str | None] = {}
        """Of documents since the last edit, as far as they were looked at."""

    async def ingest(self, texts: Sequence[datasets.Text]) -> None:
        for text in texts:
            put = await self.any().put(text.id, text.body, content_type=text.content_type)
            assert put.status_code == 201, put.text

    async def fill(self) -> None:
        for question in self.questions:
            self.before[question] = await self.fresh(question)
            for replica in self.replicas:
                self.ids[question] = (await replica.ask(question))["id"]

    def any(self) -> RunningApp:
        """One of the replicas."""
        return self.dice.choice(self.replicas)

    async def edit(self, edit: dict[str, Any]) -> None:
        """One edit with questions in flight; then every question is asked."""
        old = edit["id"], await self.version(edit["id"])
        done = asyncio.Event()
        askers = [asyncio.create_task(self.ask_on(done)) for _ in range(ASKERS)]
        await self.apply(edit)
        done.set()
        seen = [pair for asker in askers for pair in await asyncio.wait_for(asker, 60)]
        after = {question: await self.fresh(question) for question in self.questions}
        for question, documents in seen:
            if documents not in {self.before[question].documents, after[question].documents}:
                self.counts["ranked anew"] += 1
                await self.all_current(documents, f"{question}, during {edit['id']}", also=old)
        for question in self.questions:
            await self.judge(question, self.before[question], after[question], edit["id"])
        self.before = after

    async def apply(self, edit: dict[str, Any]) -> None:
        self.versions.clear()
        if edit["op"] == "put":
            done = await self.any().put(edit["id"], edit["text"], content_type="text/markdown")
            assert done.status_code in {200, 201}, done.text
        else:
            gone = await self.any().client.delete(f"/v1/documents/{edit['id']}")
            assert gone.status_code == 204, gone.text

    async def ask_on(self, done: asyncio.Event) -> list[tuple[str, Documents]]:
        seen = []
        while not done.is_set():
            question = self.dice.choice(self.questions)
            answer = await self.any().ask(question)
            seen.append((question, _documents(answer)))
            self.counts["asked under way"] += 1
            await asyncio.sleep(0.002)  # a loop that never rests keeps the threads of the write waiting
        return seen

    async def judge(self, question: str, before: Found, after: Found, edited: str) -> None:
        answers = [await replica.ask(question) for replica in self.replicas]
        stored = await self.stored(question, answers[-1]["id"])
        now = after
        if stored.evidence != after.evidence:
            # an approximate index is tidied behind the writes: two searches may rank the same passages differently
            self.counts["ranked anew"] += 1
            now = await self.fresh(question)
        for answer in answers:
            touches = edited in before.names | now.names | {name for name, _ in _documents(answer)}
            where = f"{question}, after {edited}: {answer['cache']}"
            await self.all_current(_documents(answer), where)
            assert answer["id"] == stored.id, f"another answer is stored: {where}"
            if touches or stored.evidence == now.evidence:
                assert _documents(answer) == now.documents, f"stale documents: {where}"
                assert stored.evidence == now.evidence, f"other passages or another order: {where}"
        answer = answers[0]
        same = before.evidence == after.evidence
        kept = answer["id"] == self.ids[question]
        self.counts["untouched" if same else "touched"] += 1
        self.counts["kept"] += same and kept
        self.counts["drifted"] += not same and edited not in before.names | after.names
        self.counts["answers"] += len(answers)
        self.ids[question] = answer["id"]

    async def all_current(
        self, documents: Documents, where: str, also: tuple[str, str | None] | None = None
    ) -> None:
        """One version of each document, the current one; during an edit its old one is, too."""
        assert len({name for name, _ in documents}) == len(documents), f"two versions: {where}"
        for name, version in documents:
            if (name, version) != also:
                assert version == await self.version(name), f"{name} has another version now: {where}"

    async def version(self, name: str) -> str | None:
        if name not in self.versions:
            document = await self.app.runtime.backends.store.get("default", name)
            self.versions[name] = None if document is None else document.version
        return self.versions[name]

    async def fresh(self, question: str) -> Found:
        """Retrieved now, past every cache."""
        wanted = Wanted("default", question, K, ALPHA, read=False, write=False)
        found = await self.app.runtime.answering.retrieval.passages(wanted)
        return Found(found.evidence, evidence.documents(found.passages))

    async def stored(self, question: str, answer: str) -> Any:
        """An answer is stored behind its response: it is waited for a while."""
        key = self.app.runtime.answering.key_of(Question("default", question, K, ALPHA))
        ends = time.monotonic() + STORED_SECONDS
        while True:
            found = (await self.app.runtime.backends.cache.lookup("default", key)).found
            entry = None if found is None else open_entry(found.value, key.digest)
            if (entry is not None and entry.id == answer) or time.monotonic() > ends:
                assert entry is not None, f"{question}: not stored"
                return entry
            await asyncio.sleep(0.01)


def _documents(answer: Any) -> Documents:
    return tuple((each["id"], each["version"]) for each in answer["cache"]["documents"])


def _edits(data: Path, count: int | None) -> Iterator[dict[str, Any]]:
    with gzip.open(data / "keps" / "edits.jsonl.gz", "rt") as lines:
        yield from (json.loads(line) for line in itertools.islice(lines, count))


class Stage(NamedTuple):
    """The application that judges, and the replicas that are asked."""

    judge: RunningApp
    replicas: Sequence[RunningApp]


@asynccontextmanager
async def alone(directory: Path) -> AsyncIterator[Stage]:
    """One application with everything in its process."""
    async with running_app(settings_in(directory)) as app:
        yield Stage(app, [app])


@asynccontextmanager
async def over_shared_servers(
    directory: Path, weaviate: WeaviateServer, redis: RedisServers
) -> AsyncIterator[Stage]:
    """Two API processes over one Weaviate and one Redis Cluster; the judge keeps nothing in its memory."""
    prefix = f"Edits{uuid.uuid4().hex[:8]}"
    store = weaviate.settings(prefix=prefix).model_dump(mode="json")
    cache = {"backend": redis.settings(prefix=prefix.lower()).model_dump(mode="json")}
    async with AsyncExitStack() as stack:
        processes = []
        for number in range(2):
            (directory / str(number)).mkdir()
            process = stack.enter_context(api_process(directory / str(number), store=store, cache=cache))
            process.start()
            processes.append(process)
        stack.callback(weaviate.forget, prefix)
        settings = settings_in(directory, store=store, cache={**cache, "local": {"max_entries": 0}})
        judge = await stack.enter_async_context(running_app(settings))
        replicas = []
        for process in processes:
            await asyncio.to_thread(process.wait_until, "/readyz", lambda r: r.status_code == 200, 400)
            client = httpx2.AsyncClient(base_url=process.url, timeout=60)
            replicas.append(RunningApp(judge.runtime, await stack.enter_async_context(client)))
        yield Stage(judge, replicas)


async def _replayed(
    stage: Stage, data: Path, *, edits: int | None, documents: int | None, questions: int | None
) -> Counter[str]:
    changes = list(_edits(data, edits))
    edited = {each["id"] for each in changes}
    quoted = sorted(datasets.proposal_questions(), key=lambda each: each.document not in edited)[:questions]
    wanted = {each.document for each in quoted} | edited
    texts = datasets.proposals(data).texts
    if documents is not None:
        texts = sorted(texts, key=lambda text: text.id not in wanted)[:documents]
    replay = Replay(stage.judge, stage.replicas, [each.question for each in quoted], seed=1)
    await replay.ingest(texts)
    await replay.fill()
    present = {text.id for text in texts}
    for change in changes:
        if change["op"] == "put" or change["id"] in present:
            await replay.edit(change)
            present.add(change["id"])
    made = sum([await each.metric("rag_cache_flights_total", role="led") for each in stage.replicas])
    hits = sum([await each.metric("rag_cache_hits_total", kind="exact") for each in stage.replicas])
    counts = replay.counts
    share = counts["kept"] / counts["untouched"]
    print(
        f"\n{len(changes)} edits, {len(texts)} documents, {len(quoted)} questions, {len(stage.replicas)} replicas:"
        f" {counts['answers']} answers judged, {counts['asked under way']} more asked during edits; 0 stale;"
        f" {counts['touched']} touched, {counts['untouched']} untouched of which {100 * share:.2f} % stayed cached;"
        f" {made:.0f} answers made, {hits:.0f} hits; {counts['drifted']} answers changed their passages although"
        f" the edited document is in neither the old nor the new ones; {counts['ranked anew']} were ranked anew without a write"
    )
    return counts


@pytest.mark.proves("C4")
async def test_real_edits_under_query_load_leave_no_stale_answer_and_all_others_cached(
    test_data: Path, tmp_path: Path
) -> None:
    async with alone(tmp_path) as stage:
        counts = await _replayed(stage, test_data, edits=40, documents=80, questions=20)
    assert counts["answers"] == 40 * 20
    assert counts["touched"] > 0
    assert counts["asked under way"] > 0
    assert counts["kept"] == counts["untouched"]
    assert counts["ranked anew"] == 0


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@pytest.mark.proves("C4")
async def test_all_real_edits_over_the_whole_corpus(test_data: Path, tmp_path: Path) -> None:
    async with alone(tmp_path) as stage:
        counts = await _replayed(stage, test_data, edits=None, documents=None, questions=None)
    assert counts["answers"] == 400 * len(datasets.proposal_questions())
    assert counts["kept"] >= 0.95 * counts["untouched"]
    assert counts["ranked anew"] == 0


@pytest.mark.component("redis")
@pytest.mark.component("weaviate")
@pytest.mark.timeout(900)
@pytest.mark.proves("C4")
async def test_real_edits_through_two_processes_over_a_shared_store_leave_no_stale_answer(
    test_data: Path, tmp_path: Path, weaviate_server: WeaviateServer, redis_cluster: RedisServers
) -> None:
    async with over_shared_servers(tmp_path, weaviate_server, redis_cluster) as stage:
        counts = await _replayed(stage, test_data, edits=12, documents=20, questions=8)
    assert counts["answers"] == 2 * 12 * 8
    assert counts["touched"] > 0
    assert counts["asked under way"] > 0
    assert counts["kept"] >= 0.95 * counts["untouched"]
    assert counts["ranked anew"] <= 0.01 * counts["answers"]


@pytest.mark.soak
@pytest.mark.component("redis")
@pytest.mark.component("weaviate")
@pytest.mark.timeout(4 * 3600)
@pytest.mark.proves("C4")
async def test_all_real_edits_through_two_processes_over_a_shared_store(
    test_data: Path, tmp_path: Path, weaviate_server: WeaviateServer, redis_cluster: RedisServers
) -> None:
    async with over_shared_servers(tmp_path, weaviate_server, redis_cluster) as stage:
        counts = await _replayed(stage, test_data, edits=None, documents=None, questions=30)
    assert counts["answers"] == 2 * 400 * 30
    assert counts["kept"] >= 0.95 * counts["untouched"]
    assert counts["ranked anew"] <= 0.01 * counts["answers"]
