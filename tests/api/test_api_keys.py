"""Hashed API keys: roles, tenants, rotation, and a keys file that is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ragkube_api.auth import REREAD_SECONDS, ApiKeyAuthenticator, AuthUnavailableError
from ragkube_api.errors import UnauthenticatedError
from ragkube_api.settings import ApiKeyAuth, Settings
from ragkube_api.telemetry import Telemetry
from support.api import RunningApp, running_app, settings_in

pytestmark = [pytest.mark.proves("S1"), pytest.mark.proves("S2")]

ADMIN = "the administrator's key"
LEAST_ROLE = {
    ("POST", "/v1/query"): "reader",
    ("GET", "/v1/documents"): "reader",
    ("GET", "/v1/documents/{id}"): "reader",
    ("GET", "/v1/documents/{id}/content"): "reader",
    ("GET", "/v1/sources"): "reader",
    ("POST", "/v1/documents"): "writer",
    ("PUT", "/v1/documents/{id}"): "writer",
    ("DELETE", "/v1/documents/{id}"): "writer",
}
"""Every path that asks for a key; everything else under /v1 needs admin."""
ROLES = ["reader", "writer", "admin"]


def line(name: str, key: str, role: str, **fields: Any) -> str:
    return json.dumps(
        {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "role": role, **fields}
    )


def replace(path: Path, *lines: str) -> None:
    """As a Secret volume does it: the name points to a new file at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines) + "\n", errors="surrogateescape")
    fresh.replace(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    replace(
        path, "# one line a key", "", line("app", "reads", "reader"), line("sync", "writes", "writer"),
        line("ops", "rules", "admin"), line("team-a", "team a writes", "writer", tenant="a"),
    )  # fmt: skip
    return path


@pytest.fixture
def settings(tmp_path: Path, keys: Path) -> Settings:
    (tmp_path / "admin").write_text(f"{ADMIN}\n")
    auth = {"mode": "api-key", "admin_key_file": str(tmp_path / "admin"), "keys_file": str(keys)}
    sources = [
        {"name": f"of-{tenant}", "path": str(tmp_path), "include": ["*.md"], "tenant": tenant}
        for tenant in ("a", "b")
    ]
    return settings_in(tmp_path, auth=auth, documents={"sources": sources})


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **{k.replace("_", "-"): v for k, v in headers.items()}}


async def listed(app: RunningApp, key: str, **headers: str) -> httpx2.Response:
    return await app.client.get("/v1/documents", headers=bearer(key, **headers))


@pytest.mark.parametrize(("key", "role"), [("reads", "reader"), ("writes", "writer"), ("rules", "admin")])
async def test_every_path_of_the_api_needs_its_role(settings: Settings, key: str, role: str) -> None:
    """The paths come from the OpenAPI document: a new one that asks for too little fails here."""
    async with running_app(settings) as app:
        paths = (await app.client.get("/openapi.json")).json()["paths"]
        seen = set()
        for path, operations in paths.items():
            for method in operations:
                if not path.startswith("/v1/"):
                    continue
                seen.add((method.upper(), path))
                least = LEAST_ROLE.get((method.upper(), path), "admin")
                response = await app.client.request(
                    method, path.replace("{id}", "x.txt"), headers=bearer(key)
                )
                allowed = ROLES.index(role) >= ROLES.index(least)
                assert (response.status_code != 403) is allowed, (method, path, response.text)
                if not allowed:
                    assert response.headers["content-type"] == "application/problem+json"
                    body = response.json()
                    assert body["code"] == "forbidden"
                    assert f"needs the role '{least}'; yours is '{role}'" in body["detail"]
        assert set(LEAST_ROLE) <= seen


async def test_a_key_of_one_tenant_reaches_no_other(settings: Settings) -> None:
    async with running_app(settings) as app:
        put = await app.client.put(
            "/v1/documents/x.txt", content=b"The moon is far.", headers=bearer("team a writes")
        )
        assert put.status_code == 201

        assert len((await listed(app, "team a writes")).json()["documents"]) == 1
        other = await listed(app, "team a writes", X_Ragkube_Tenant="b")
        assert (other.status_code, other.json()["code"]) == (403, "forbidden")
        assert (await listed(app, "reads", X_Ragkube_Tenant="a")).json()["documents"]
        assert not (await listed(app, "reads")).json()["documents"]
        sources = (await app.client.get("/v1/sources", headers=bearer("team a writes"))).json()["sources"]
        assert [source["name"] for source in sources] == ["of-a"]
        assert len((await app.client.get("/v1/sources", headers=bearer("reads"))).json()["sources"]) == 2


async def test_a_key_is_rotated_with_two_valid_at_a_time(settings: Settings, keys: Path) -> None:
    old, new = line("app", "old", "reader"), line("app", "new", "reader")
    async with running_app(settings) as app:
        replace(keys, old)
        assert (await listed(app, "old")).status_code == 200
        replace(keys, old, new)
        assert (await listed(app, "new")).status_code == 200
        assert (await listed(app, "old")).status_code == 200
        replace(keys, new)
        await app.client.get("/readyz")  # looks at the files, as a request does a second later at the latest
        refused = await listed(app, "old")
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert (await listed(app, "new")).status_code == 200


WRONG = [
    ("no json", "line 2: no JSON object"),
    ("[]", "line 2: the line: Input should be an object"),
    (line("x", "other", "owner"), "line 2: role: Input should be 'reader', 'writer' or 'admin'"),
    (line("x", "other", "reader", tennant="a"), "line 2: a field that is not known"),
    (line("x", "other", "reader", tenant="A B"), "line 2: tenant: "),
    ('{"name": "x", "role": "reader"}', "line 2: sha256: Field required"),
    ('{"name": "x", "sha256": "the key itself", "role": "reader"}', "line 2: sha256: "),
    (line("x", "good", "admin"), "line 2: the same sha256 stands in an earlier line"),
]


@pytest.mark.parametrize(("wrong", "reason"), WRONG)
async def test_a_wrong_line_costs_no_other_key_and_is_reported(
    settings: Settings, keys: Path, wrong: str, reason: str
) -> None:
    async with running_app(settings) as app:
        replace(keys, line("app", "good", "reader"), wrong)

        ready = await app.client.get("/readyz")

        dependency = ready.json()["dependencies"]["api-keys"]
        assert (ready.status_code, dependency["up"], dependency["required"]) == (200, False, False)
        assert reason in dependency["detail"]
        assert "the key itself" not in ready.text
        assert await app.metric("rag_api_keys", state="usable") == 1
        assert await app.metric("rag_api_keys", state="unusable") == 1
        assert await app.metric("rag_dependency_up", dependency="api-keys") == 0
        assert (await listed(app, "good")).status_code == 200
        assert (await listed(app, ADMIN)).status_code == 200
        assert (await listed(app, "other")).status_code == 401
        replace(keys, line("app", "good", "reader"))
        assert (await app.client.get("/readyz")).json()["dependencies"]["api-keys"]["up"]


async def test_without_its_keys_file_the_administrator_gets_in_and_nobody_is_called_wrong(
    settings: Settings, keys: Path
) -> None:
    async with running_app(settings) as app:
        replace(keys, "\udcff")
        unreadable = await listed(app, "reads")
        assert (unreadable.status_code, unreadable.json()["code"]) == (503, "auth-unavailable")
        assert "retry-after" in unreadable.headers
        remove(keys)
        assert (await listed(app, "reads")).status_code == 503
        assert (await listed(app, ADMIN)).status_code == 200
        ready = await app.client.get("/readyz")
        assert (ready.status_code, ready.json()["dependencies"]["api-keys"]["up"]) == (200, False)
        replace(keys, line("app", "reads", "reader"))
        assert (await listed(app, "reads")).status_code == 200


def test_a_file_that_may_be_read_again_is_read_again(
    settings: Settings, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    assert isinstance(settings.auth, ApiKeyAuth)
    replace(keys, line("app", "reads", "reader"))
    with monkeypatch.context() as forbidden:  # the tests may run as root, who may read everything
        forbidden.setattr(Path, "open", _forbidden)
        auth = ApiKeyAuthenticator(settings.auth, frozenset(), Telemetry(), clock=lambda: now[0])
        with pytest.raises(AuthUnavailableError):
            auth.authenticate("Bearer reads")
    keys.chmod(0o640)
    now[0] += REREAD_SECONDS
    assert auth.authenticate("Bearer reads").role == "reader"


def _forbidden(*_: object, **__: object) -> None:
    raise PermissionError


async def test_a_tier_that_does_not_exist_is_reported_and_the_default_one_is_used(
    settings: Settings, keys: Path
) -> None:
    tiers = {"tiers": {"gold": {"requests_per_minute": 60, "burst": 60}}, "default_tier": "gold"}
    replace(keys, line("app", "reads", "reader", tier="golf"), line("other", "x", "reader", tier="gold"))
    async with running_app(settings.model_validate({**settings.model_dump(), "limits": tiers})) as app:
        authenticate = app.runtime.authenticator.authenticate
        assert authenticate("Bearer reads").tier is None
        assert authenticate("Bearer x").tier == "gold"
        detail = (await app.client.get("/readyz")).json()["dependencies"]["api-keys"]["detail"]
        assert "line 1: the tier is none of spec.limits.tiers" in detail


def test_a_removed_key_works_for_a_second_at_most(settings: Settings, keys: Path) -> None:
    now = [100.0]
    assert isinstance(settings.auth, ApiKeyAuth)
    auth = ApiKeyAuthenticator(settings.auth, frozenset(), Telemetry(), clock=lambda: now[0])
    assert auth.authenticate("Bearer reads").subject == "app"
    replace(keys, line("app", "new", "reader"))
    now[0] += REREAD_SECONDS
    with pytest.raises(UnauthenticatedError):
        auth.authenticate("Bearer reads")
    assert auth.authenticate("bearer new").role == "reader"


@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_whatever_stands_in_the_file_opens_nothing_and_locks_nobody_out(
    settings: Settings, keys: Path, content: bytes
) -> None:
    assert isinstance(settings.auth, ApiKeyAuth)
    keys.write_bytes(line("app", "good", "reader").encode() + b"\n" + content)
    auth = ApiKeyAuthenticator(settings.auth, frozenset(), Telemetry())
    assert auth.authenticate(f"Bearer {ADMIN}").role == "admin"
    with pytest.raises((UnauthenticatedError, AuthUnavailableError)):
        auth.authenticate("Bearer other")
    if auth._known.keys.unreadable is None:
        assert auth.authenticate("Bearer good").role == "reader"
