"""The operator asks an external Redis with the credentials of the spec: TLS, CA, user and password."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragkube_operator import probes
from ragkube_operator.redis_client import Access
from ragkube_operator.status import Reason
from support.processes import Process, free_ports, tool, wait_for

pytestmark = pytest.mark.component("redis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Redis that speaks TLS only and has a user; (address, CA file)."""
    folder = tmp_path_factory.mktemp("tls")
    (port,) = free_ports(1)
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 "
        "-subj /CN=redis -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    (folder / "redis.conf").write_text(
        f"port 0\ntls-port {port}\ntls-cert-file cert.pem\ntls-key-file key.pem\ntls-ca-cert-file cert.pem\n"
        "tls-auth-clients no\nbind 127.0.0.1\nuser default off\nuser rag on >s3cret ~* +@all\n"
    )
    process = Process([tool("redis-server"), folder / "redis.conf"], folder / "log")
    process.start()
    wait_for("it listens", lambda: "Ready to accept" in (folder / "log").read_text())
    yield f"127.0.0.1:{port}", folder / "cert.pem"
    process.kill()


@pytest.mark.proves("K4")
async def test_it_answers_with_the_right_credentials(server: tuple[str, Path]) -> None:
    address, ca = server
    part = await probes.redis(["127.0.0.1:1", address], Access("s3cret", "rag", tls=True, ca=ca.read_text()))
    assert (part.ready, part.reason) == (True, Reason.REACHABLE)
    assert address in part.message


@pytest.mark.proves("K4")
@pytest.mark.parametrize(
    ("access", "reason", "hint"),
    [
        (Access("wrong", "rag", tls=True), Reason.AUTHENTICATION_FAILED, "passwordSecretRef"),
        (Access(None, tls=True), Reason.AUTHENTICATION_FAILED, "passwordSecretRef"),
        (Access("s3cret", "rag"), Reason.UNREACHABLE, "spec.cache.redis.external"),
    ],
)
async def test_what_is_wrong_is_told(
    server: tuple[str, Path], access: Access, reason: Reason, hint: str
) -> None:
    address, ca = server
    trusted = Access(access.password, access.username, access.tls, ca.read_text() if access.tls else None)
    part = await probes.redis([address], trusted)
    assert (part.ready, part.reason) == (False, reason)
    assert hint in part.message
    assert "s3cret" not in part.message


async def test_a_server_that_the_ca_does_not_know_is_not_trusted(server: tuple[str, Path]) -> None:
    address, _ = server
    part = await probes.redis([address], Access("s3cret", "rag", tls=True))
    assert part.reason is Reason.UNREACHABLE
    assert "certificate" in part.message.lower()
