"""Root file systems from Debian packages: the base of the Python images, Redis and Valkey, also as programs of the host."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cluster.testbed.paths import TestbedError, cache_root, digest, locked
from cluster.testbed.shell import Timer, need, run

SUITE = "trixie"
UID = 999  # what the public Redis and Valkey images run as

_ENTRYPOINT = """\
#!/bin/sh
# as in the public image: arguments alone are the server's
case "$1" in -* | *.conf) set -- {server} "$@" ;; esac
exec "$@"
"""
_WRAPPER = """\
#!/bin/sh
exec {loader} --library-path {libraries} --argv0 {name} {program} "$@"
"""
_USELESS = ("doc", "man", "info", "locale", "bash-completion", "lintian", "perl5", "zoneinfo")


@dataclass(frozen=True)
class Server:
    """A server that Debian packages."""

    package: str
    programs: tuple[str, ...]


SERVERS = {
    "redis": Server("redis-server", ("redis-server", "redis-cli")),
    "valkey": Server("valkey-server", ("valkey-server", "valkey-cli")),
}


def python_base() -> Path:
    """A tar of a minimal Debian with Python, pip and venv."""
    packages = ("python3-venv", "python3-pip", "ca-certificates")
    target = cache_root() / "rootfs" / f"python-{SUITE}-{digest(*packages, length=8)}.tar"
    if not target.exists():
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")]
        _bootstrap("minbase", packages, target, excluded)
    return target


def server(name: str) -> Path:
    """The root file system of Redis or Valkey, unpacked."""
    wanted = SERVERS[name]
    packages = ("base-files", wanted.package, "dash", "coreutils")
    target = cache_root() / "rootfs" / f"{name}-{SUITE}-{digest(*packages, _ENTRYPOINT, length=8)}"
    if not target.exists():
        tar = target.with_suffix(".tar")
        _bootstrap("extract", packages, tar, [])
        with locked("build"):
            _unpack(tar, target, wanted)
        tar.unlink()
    return target


def host_program(name: str) -> Path:
    """A wrapper that runs a server's program on this machine, with the C library that it was built for."""
    owner = next((key for key, value in SERVERS.items() if name in value.programs), None)
    if owner is None:
        raise TestbedError(f"no server has a program {name!r}")
    root = server(owner)
    loader = next(root.glob("usr/lib*/ld-linux-*.so.*"), None)
    if loader is None:
        raise TestbedError(f"{root} has no dynamic loader")
    libraries = next(root.glob("usr/lib/*-linux-gnu"))
    text = _WRAPPER.format(loader=loader, libraries=libraries, name=name, program=root / "usr" / "bin" / name)
    wrapper = cache_root() / "tools" / name
    if not wrapper.exists() or wrapper.read_text() != text:
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        fresh = wrapper.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.rename(wrapper)
    return wrapper


def _bootstrap(variant: str, packages: tuple[str, ...], target: Path, options: list[str]) -> None:
    need("mmdebstrap")
    with locked("build"):
        if target.exists():  # made while we waited
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new.tar")
        with Timer(f"unpacked Debian's {packages[0]}, {packages[1]}"):
            run(
                [
                    "mmdebstrap",
                    f"--variant={variant}",
                    f"--include={','.join(packages)}",
                    *options,
                    SUITE,
                    fresh,
                ]
            )
        fresh.rename(target)


def _unpack(tar: Path, target: Path, wanted: Server) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        root = Path(folder) / "root"
        root.mkdir()
        run(["tar", "-C", root, "--exclude=./dev/*", "-xf", tar])
        for useless in _USELESS:
            shutil.rmtree(root / "usr" / "share" / useless, ignore_errors=True)
        account = wanted.programs[0].partition("-")[0]
        (root / "etc" / "passwd").write_text(
            f"root:x:0:0:root:/root:/bin/sh\n{account}:x:{UID}:{UID}::/data:/bin/sh\n"
        )
        (root / "etc" / "group").write_text(f"root:x:0:\n{account}:x:{UID}:\n")
        entrypoint = root / "usr" / "local" / "bin" / "docker-entrypoint.sh"
        entrypoint.parent.mkdir(parents=True, exist_ok=True)
        entrypoint.write_text(_ENTRYPOINT.format(server=wanted.programs[0]))
        entrypoint.chmod(0o755)
        (root / "data").mkdir()
        (root / "tmp").chmod(0o1777)
        if os.geteuid() == 0:
            os.chown(root / "data", UID, UID)
        root.rename(target)
