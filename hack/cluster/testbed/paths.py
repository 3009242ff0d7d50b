"""Where things live: the checkout, the cache outside of it, and one state directory per cluster."""

import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CHECKOUT = HERE.parents[1]
NODE_SCRIPTS = HERE / "nodes"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


class TestbedError(Exception):
    """Something the caller can act on; the message says what."""

    __test__ = False


class UnavailableError(TestbedError):
    """This machine cannot run the cluster that is asked for."""


def cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ragkube"


def digest(*parts: str | bytes, length: int = 10) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:length]


@dataclass(frozen=True)
class State:
    """The state directory of one cluster. Names, cgroups and marker are derived from its path."""

    name: str
    root: Path

    @classmethod
    def named(
        cls, name: str | None = None, *, checkout: Path = CHECKOUT, cache: Path | None = None
    ) -> "State":
        """The state of cluster `name`, or of this checkout's own cluster."""
        if name is None:
            stem = re.sub(r"[^a-z0-9]+", "-", checkout.name.lower()).strip("-")[:20].strip("-") or "checkout"
            name = f"{stem}-{digest(str(checkout), length=6)}"
        if not _NAME.fullmatch(name):
            raise TestbedError(f"{name!r} is no cluster name: a-z, 0-9 and - only, at most 40 characters")
        return cls(name, (cache or cache_root()).resolve() / "clusters" / name)

    @property
    def id(self) -> str:
        """Unique on the machine, also between two caches: names cgroups and marks processes."""
        return f"rk{digest(str(self.root))}"

    @property
    def marker(self) -> str:
        return f"RAGKUBE_TESTBED={self.id}"

    @property
    def kubeconfig(self) -> Path:
        """For clients on the host."""
        return self.root / "kubeconfig" / "host.conf"

    @property
    def inner_kubeconfig(self) -> Path:
        """For clients inside the namespaces of our own cluster."""
        return self.root / "kubeconfig" / "admin.conf"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def log(self) -> Path:
        return self.root / "log"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One at a time, over processes too: builds share two cores and one image store."""
    path = cache_root() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process to release {path}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
