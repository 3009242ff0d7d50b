"""Generated Secrets are made once; referenced ones are looked at and explained."""

from __future__ import annotations

import base64

import pytest

from ragkube_operator.engine import SECRET, Owner
from ragkube_operator.errors import StalledError
from ragkube_operator.render import GeneratedSecret, SecretRef
from ragkube_operator.secret_store import SecretStore, check
from ragkube_operator.status import Reason
from support.fake_kube import FakeKube

OWNER = Owner("ragkube.dev/v1alpha1", "RagDeployment", "shop", "demo", "owner-1")
REDIS = GeneratedSecret("demo-redis-auth", "password", "redis", {"auth.conf": "requirepass {value}\n"})


def data(kube: FakeKube, name: str) -> dict[str, str]:
    found = kube.objects[SECRET, name]["data"]
    return {key: base64.b64decode(value).decode() for key, value in found.items()}


@pytest.mark.proves("S6")
async def test_a_generated_secret_is_random_and_never_changes() -> None:
    kube = FakeKube()
    await SecretStore(kube, "shop").ensure(OWNER, [REDIS])
    first = data(kube, REDIS.name)
    assert len(first["password"]) >= 32
    assert first["auth.conf"] == f"requirepass {first['password']}\n"
    assert kube.objects[SECRET, REDIS.name]["metadata"]["ownerReferences"][0]["uid"] == "owner-1"
    await SecretStore(kube, "shop").ensure(OWNER, [REDIS])
    assert data(kube, REDIS.name) == first
    assert len(kube.writes) == 1


async def test_a_lost_key_is_made_from_the_value_that_is_in_use() -> None:
    kube = FakeKube()
    await SecretStore(kube, "shop").ensure(OWNER, [REDIS])
    password = data(kube, REDIS.name)["password"]
    del kube.objects[SECRET, REDIS.name]["data"]["auth.conf"]
    await SecretStore(kube, "shop").ensure(OWNER, [REDIS])
    assert data(kube, REDIS.name) == {"password": password, "auth.conf": f"requirepass {password}\n"}


async def test_a_secret_of_somebody_else_is_not_used() -> None:
    kube = FakeKube()
    kube.objects[SECRET, REDIS.name] = {"metadata": {"name": REDIS.name, "uid": "x"}, "data": {}}
    with pytest.raises(StalledError, match="Secret shop/demo-redis-auth exists and does not belong"):
        await SecretStore(kube, "shop").ensure(OWNER, [REDIS])


@pytest.mark.proves("K4")
async def test_a_missing_secret_says_what_to_do_and_heals() -> None:
    kube = FakeKube()
    wanted = [SecretRef("claude", "api-key", "spec.llm.anthropic.apiKeySecretRef", "llm")]
    part = await check(SecretStore(kube, "shop"), wanted)
    assert (part.ready, part.reason) == (False, Reason.SECRET_MISSING)
    assert (
        "Secret claude with key api-key does not exist (spec.llm.anthropic.apiKeySecretRef)" in part.message
    )
    assert "kubectl create secret generic claude -n shop --from-literal=api-key=VALUE" in part.message
    kube.objects[SECRET, "claude"] = {"metadata": {"name": "claude", "uid": "x"}, "data": {"key": "eA=="}}
    part = await check(SecretStore(kube, "shop"), wanted)
    assert "Secret claude has no key api-key" in part.message
    kube.objects[SECRET, "claude"]["data"]["api-key"] = base64.b64encode(b"sk").decode()
    assert (await check(SecretStore(kube, "shop"), wanted)).ready
    assert kube.writes == []
