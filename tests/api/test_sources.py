"""Directories that are kept in the index."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragkube_api.context import Backends
from ragkube_api.domain import SourceStatus
from ragkube_api.errors import CacheUnavailableError, StoreUnavailableError
from ragkube_api.services.scan import scan
from support.api import Change, RunningApp, running_app, settings_in
from support.trouble import Away


class Folder:
    """A directory of documents, and the application that keeps it."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.path = tmp_path / "docs"
        self.path.mkdir()

    def write(self, **files: str | bytes) -> None:
        for name, content in files.items():
            self.put(name.replace("__", "/").replace("_", "."), content)

    def put(self, name: str, content: str | bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def app(self, change: Change | None = None, **source: Any) -> Any:
        source = {"name": "docs", "path": str(self.path), **source}
        documents = {"sources": [source], "max_bytes": 10_000}
        return running_app(settings_in(self.tmp_path, documents=documents), change)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def _sync(app: RunningApp) -> SourceStatus:
    return await app.runtime.sources.sync(app.runtime.settings.documents.sources[0])


async def _ids(app: RunningApp) -> list[str]:
    page = (await app.client.get("/v1/documents", params={"source": "docs"})).json()
    return [document["id"] for document in page["documents"]]


@pytest.mark.proves("K14")
async def test_files_are_added_replaced_and_removed_and_unchanged_ones_left_alone(folder: Folder) -> None:
    folder.write(a_md="# Redis\n\nKeeps answers.", deep__b_txt="The moon is far.", c_txt="Goes away.")
    async with folder.app() as app:
        first = await _sync(app)
        version = (await app.client.get("/v1/documents/a.md")).json()["version"]
        second = await _sync(app)
        (folder.path / "c.txt").unlink()
        folder.write(deep__b_txt="The moon is near.", d_txt="Comes.")
        third = await _sync(app)

        assert (first.state, first.total, first.done, first.indexed) == ("synced", 3, 3, 3)
        assert (second.indexed, second.unchanged, second.deleted) == (0, 3, 0)
        assert (third.indexed, third.unchanged, third.deleted) == (2, 1, 1)
        assert await _ids(app) == ["a.md", "d.txt", "deep/b.txt"]
        assert (await app.client.get("/v1/documents/a.md")).json()["version"] == version
        assert "near" in (await app.ask("How far is the moon?"))["answer"]


@pytest.mark.proves("I4")
async def test_a_pass_that_changes_nothing_keeps_the_cached_answers(folder: Folder) -> None:
    folder.write(a_txt="The moon is far.")
    async with folder.app() as app:
        await _sync(app)
        await app.ask("How far is the moon?")
        await _sync(app)

        assert (await app.ask("How far is the moon?"))["cache"]["status"] == "hit"


@pytest.mark.proves("I7")
async def test_files_that_cannot_be_indexed_are_listed_with_code_and_sentence(folder: Folder) -> None:
    folder.write(
        good_txt="Fine.",
        empty_txt="",
        broken_pdf=b"%PDF-1.7 cut off",
        picture_png=b"\x89PNG",
        large_txt="x" * 10_001,
    )
    (folder.path / "gone.txt").symlink_to(folder.path / "nowhere.txt")
    (folder.path / "out.txt").symlink_to("/etc/hostname")
    (folder.path / "in.txt").symlink_to(folder.path / "good.txt")
    os.mkfifo(folder.path / "pipe.txt")
    folder.write(dir__content="No suffix, and no name a document may have.")
    async with folder.app() as app:
        status = await _sync(app)
        shown = (await app.client.get("/v1/sources")).json()["sources"][0]

        assert await _ids(app) == ["good.txt", "in.txt"]

    codes = {path: code for path, (code, _) in status.failures.items()}
    assert codes == {
        "empty.txt": "document-empty", "broken.pdf": "document-broken", "large.txt": "document-too-large",
        "picture.png": "document-type-unsupported", "gone.txt": "source-unreadable",
        "out.txt": "source-path-outside", "dir/content": "document-unusable",
    }  # fmt: skip
    assert (status.state, status.indexed) == ("synced", 2)
    assert {failure["path"] for failure in shown["failures"]} == set(codes)
    assert all(failure["detail"] for failure in shown["failures"])


async def test_a_file_that_became_unusable_keeps_its_last_good_version(folder: Folder) -> None:
    folder.write(a_txt="The moon is far.")
    async with folder.app() as app:
        await _sync(app)
        folder.write(a_txt="")
        status = await _sync(app)

        assert set(status.failures) == {"a.txt"}
        assert (await app.client.get("/v1/documents/a.txt/content")).text == "The moon is far."


async def test_hidden_files_and_links_to_directories_are_passed_over(folder: Folder) -> None:
    folder.put(".hidden.txt", "Hidden.")
    folder.put(".git/a.txt", "Hidden.")
    folder.put("sub/a.txt", "Seen.")
    (folder.path / "loop").symlink_to(folder.path)
    async with folder.app() as app:
        status = await _sync(app)

        assert (await _ids(app), status.failures) == (["sub/a.txt"], {})


async def test_a_mounted_config_map_is_read_through_its_links(folder: Folder) -> None:
    folder.put("..2024_01/a.txt", "The moon is far.")
    (folder.path / "..data").symlink_to("..2024_01")
    (folder.path / "a.txt").symlink_to("..data/a.txt")
    async with folder.app() as app:
        assert ((await _sync(app)).indexed, await _ids(app)) == (1, ["a.txt"])


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (["**/*"], {"a.md", "b.txt", "x/a.md", "x/y/c.md"}),
        (["**/*.md"], {"a.md", "x/a.md", "x/y/c.md"}),
        (["*.md"], {"a.md"}),
        (["x/**"], {"x/a.md", "x/y/c.md"}),
        (["x/*"], {"x/a.md"}),
        (["**/a.md", "b.*"], {"a.md", "x/a.md", "b.txt"}),
        (["[!a].???"], {"b.txt"}),
        (["./b.txt", "none"], {"b.txt"}),
        ([], set()),
    ],
)
async def test_patterns(folder: Folder, include: list[str], expected: set[str]) -> None:
    folder.write(a_md="x", b_txt="x", x__a_md="x", x__y__c_md="x")

    assert set(scan(folder.path, include).files) == expected


async def test_a_narrower_pattern_removes_what_it_leaves_out(folder: Folder) -> None:
    folder.write(a_md="One.", b_txt="Two.")
    async with folder.app() as app:
        await _sync(app)
    async with folder.app(include=["*.md"]) as app:
        assert ((await _sync(app)).deleted, await _ids(app)) == (1, ["a.md"])


async def test_a_directory_that_is_away_fails_the_pass_and_deletes_nothing(folder: Folder) -> None:
    folder.write(a_txt="The moon is far.")
    async with folder.app() as app:
        await _sync(app)
        folder.path.rename(folder.tmp_path / "elsewhere")
        status = await _sync(app)

        assert status.state == "failed"
        assert "No such file" in str(status.detail)
        assert await _ids(app) == ["a.txt"]


async def test_what_belongs_to_a_source_is_changed_there(folder: Folder) -> None:
    folder.write(a_txt="From the source.", mine_txt="From the source.")
    async with folder.app() as app:
        await app.put("mine.txt", "By request.")
        status = await _sync(app)
        put = await app.put("a.txt", "By request.")
        delete = await app.client.delete("/v1/documents/a.txt")

        assert {path: code for path, (code, _) in status.failures.items()} == {"mine.txt": "conflict"}
        assert (await app.client.get("/v1/documents/mine.txt/content")).text == "By request."
        assert (put.status_code, put.json()["code"]) == (409, "conflict")
        assert delete.status_code == 409
    async with folder.app(name="renamed") as app:
        assert (await app.client.delete("/v1/documents/a.txt")).status_code == 204


async def test_a_store_that_is_away_fails_the_pass_and_the_next_one_finishes(folder: Folder) -> None:
    folder.write(**{f"f{n}_txt": f"Text {n}." for n in range(9)})
    stores: list[Away] = []

    class FailsSoon(Away):
        async def put(self, *arguments: Any) -> None:
            if self.calls.count("put") == 4:
                self.error = StoreUnavailableError("The document store cannot be reached.")
            self._pass("put")
            await self.inner.put(*arguments)

    def change(backends: Backends) -> Backends:
        stores.append(FailsSoon(backends.store))
        return replace(backends, store=stores[0])

    async with folder.app(change) as app:
        failed = await _sync(app)
        stores[0].error, stores[0].calls = None, ["put"] * 5
        finished = await _sync(app)

        assert (failed.state, failed.detail) == ("failed", "The document store cannot be reached.")
        assert finished.state == "synced"
        assert finished.unchanged + finished.indexed == 9
        assert finished.unchanged >= 4


async def test_progress_that_cannot_be_published_does_not_stop_the_work(folder: Folder) -> None:
    folder.write(a_txt="The moon is far.")
    boards: list[Away] = []

    def change(backends: Backends) -> Backends:
        boards.append(Away(backends.board))
        return replace(backends, board=boards[0])

    async with folder.app(change) as app:
        boards[0].error = CacheUnavailableError("The cache cannot be reached.")
        assert (await _sync(app)).state == "synced"
        assert (await app.client.get("/v1/sources")).status_code == 503
        boards[0].error = None
        assert (await app.client.get("/v1/sources")).json()["sources"][0]["state"] == "pending"


async def test_a_source_with_an_interval_is_scanned_again(folder: Folder) -> None:
    folder.write(a_txt="One.")
    async with folder.app(interval_seconds=0.05) as app:
        task = asyncio.create_task(app.runtime.sources.run())
        await _until(app, ["a.txt"])
        folder.write(b_txt="Two.")
        await _until(app, ["a.txt", "b.txt"])
        task.cancel()
        await asyncio.wait([task])


async def _until(app: RunningApp, expected: list[str]) -> None:
    async with asyncio.timeout(10):
        while await _ids(app) != expected:  # noqa: ASYNC110 - what is waited for is what a user sees
            await asyncio.sleep(0.01)
