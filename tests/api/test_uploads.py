"""Many files in one request: each gets its own result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragkube_api.schemas import UploadBody
from support.api import RunningApp, running_app, settings_in

LIMIT = 1000


def _files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", pair) for pair in named]


@pytest.mark.proves("I1")
async def test_many_files_are_stored_under_their_names(app: RunningApp) -> None:
    files = _files(("docs/a.md", b"# Redis\n\nKeeps answers."), ("b.txt", b"The moon is far."))

    response = await app.client.post("/v1/documents?meta.team=blue", files=files)

    body = response.json()
    UploadBody.model_validate_json(response.content)
    assert response.status_code == 200
    assert [(r["id"], r["status"]) for r in body["results"]] == [("docs/a.md", 201), ("b.txt", 201)]
    assert body["results"][0]["document"]["title"] == "Redis"
    assert body["results"][0]["document"]["metadata"] == {"team": "blue"}
    assert (body["stored"], body["unchanged"], body["failed"]) == (2, 0, 0)
    again = (await app.client.post("/v1/documents?meta.team=blue", files=files)).json()
    assert (again["stored"], again["unchanged"]) == (0, 2)


@pytest.mark.proves("I7")
async def test_a_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    async with running_app(settings_in(tmp_path, documents={"max_bytes": LIMIT})) as app:
        response = await app.client.post(
            "/v1/documents",
            files=_files(
                ("good.txt", b"Fine."),
                ("empty.txt", b""),
                ("large.txt", b"x" * (LIMIT + 1)),
                ("broken.pdf", b"%PDF-1.7 cut off"),
                ("picture.png", b"\x89PNG"),
                ("../out.txt", b"Fine."),
                ("last.txt", b"y" * LIMIT),
            ),
        )
        listed = (await app.client.get("/v1/documents")).json()["documents"]

    body = response.json()
    codes = {r["id"]: r["error"] and r["error"]["code"] for r in body["results"]}
    assert response.status_code == 207
    assert codes == {
        "good.txt": None, "empty.txt": "document-empty", "large.txt": "document-too-large",
        "broken.pdf": "document-broken", "picture.png": "document-type-unsupported",
        "../out.txt": "invalid-request", "last.txt": None,
    }  # fmt: skip
    assert [document["id"] for document in listed] == ["good.txt", "last.txt"]
    assert (body["stored"], body["failed"]) == (2, 5)


async def test_when_no_file_is_stored_the_response_is_an_error(app: RunningApp) -> None:
    one = await app.client.post("/v1/documents", files=_files(("a.txt", b""), ("b.txt", b"")))
    mixed = await app.client.post("/v1/documents", files=_files(("a.txt", b""), ("b.png", b"\x89PNG")))

    assert (one.status_code, one.json()["code"], one.json()["failed"]) == (422, "document-empty", 2)
    assert one.headers["content-type"] == "application/problem+json"
    assert (mixed.status_code, mixed.json()["code"]) == (422, "invalid-request")
    assert len(mixed.json()["results"]) == 2


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("multipart/form-data; boundary=x", b"no boundary here", 400, "malformed-body"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut', 400, "malformed-body"),
        ("multipart/form-data", b"--x--", 400, "malformed-body"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "invalid-request"),
        ("application/json", b"{}", 400, "malformed-body"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * 20_000 + b": b\r\n\r\n", 400, "malformed-body"),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_multipart(
    app: RunningApp, content_type: str, body: bytes, status: int, code: str
) -> None:
    response = await app.client.post("/v1/documents", content=body, headers={"content-type": content_type})

    assert (response.status_code, response.json()["code"]) == (status, code), response.text


async def test_a_field_that_is_no_file_is_named(app: RunningApp) -> None:
    response = await app.client.post(
        "/v1/documents", data={"team": "blue"}, files=_files(("a.txt", b"Fine."))
    )

    results: list[Any] = response.json()["results"]
    assert response.status_code == 207
    assert [r["error"]["errors"][0]["field"] for r in results if r["error"]] == ["team"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.integers(1, 60), max_size=30),
    bodies=st.lists(st.binary(max_size=120), min_size=1, max_size=4),
)
async def test_files_come_out_whole_however_the_body_is_cut(
    app: RunningApp, pieces: list[int], bodies: list[bytes]
) -> None:
    boundary = b"--q7J2boundary"
    parts = [
        b'%s\r\nContent-Disposition: form-data; name="file"; filename="%d.txt"\r\n\r\nx%s\r\n'
        % (boundary, n, body.hex().encode())
        for n, body in enumerate(bodies)
    ]
    whole = b"".join(parts) + boundary + b"--\r\n"

    async def stream() -> Any:
        rest = whole
        for size in pieces:
            yield rest[:size]
            rest = rest[size:]
        yield rest

    response = await app.client.post(
        "/v1/documents", content=stream(), headers={"content-type": f"multipart/form-data; boundary={boundary[2:].decode()}"}
    )  # fmt: skip

    assert response.status_code == 200, response.text
    for n, body in enumerate(bodies):
        text = (await app.client.get(f"/v1/documents/{n}.txt/content")).text
        assert text == f"x{body.hex()}"
