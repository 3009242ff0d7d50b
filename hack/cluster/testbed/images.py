"""The images that the manifests name: the project's own two from its Dockerfile, and the servers beside them.

With Docker they are built and pulled as everybody does it. Without, buildah builds the same Dockerfile on a base made of
Debian packages, and the servers come from Debian packages or from their published Go modules.
"""

import configparser
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from cluster.testbed import programs, rootfs
from cluster.testbed.archive import Config, Image, Store
from cluster.testbed.paths import CHECKOUT, TestbedError, cache_root, digest, locked
from cluster.testbed.servers import GO_SERVERS
from cluster.testbed.shell import Timer, need, run

SERVERS = {
    "redis": "redis:8.0",
    "valkey": "valkey/valkey:8.1",
    **{name: server.reference for name, server in GO_SERVERS.items()},
}
PROJECT = ("api", "operator")
NAMES = (*PROJECT, "redis", "valkey", "weaviate")  # what every cluster gets; the rest is brought by name
KNOWN = (*PROJECT, *SERVERS)

_SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "requirements")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def version() -> str:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def reference(name: str) -> str:
    if name in PROJECT:
        return f"ragkube/{name}:{version()}"
    if name in SERVERS:
        return SERVERS[name]
    raise TestbedError(f"unknown image {name!r}; known: {', '.join(KNOWN)}")


def store() -> Store:
    return Store(cache_root() / "images")


def build(names: Sequence[str] = ()) -> list[Image]:
    """The images, built where the cache does not have them."""
    return [_build(name) for name in names or NAMES]


def archives(names: Sequence[str] = ()) -> list[Path]:
    """Archives of the images, built and pulled by Docker."""
    return [_with_docker(name) for name in names or NAMES]


def _cached(name: str, key: str, make: Callable[[], Image]) -> Image:
    record = store().root / "made" / f"{name}-{key}.json"
    with locked("images"):
        if record.exists():
            found = Image(**json.loads(record.read_text()))
            if found.reference == reference(name) and store().complete(found):
                record.touch()
                return found
        with Timer(f"image {reference(name)}"):
            image = make()
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(asdict(image)))
        _forget_old(record.parent, name, keep=3)
    return image


def _forget_old(folder: Path, name: str, keep: int) -> None:
    """Keep the last few builds of an image, so that going back and forth between two states costs nothing."""
    records = sorted(folder.glob(f"{name}-*.json"), key=lambda path: path.stat().st_mtime)
    for old in records[:-keep]:
        old.unlink()
    kept = [Image(**json.loads(record.read_text())) for record in folder.glob("*.json")]
    store().forget([image for image in kept if store().complete(image)])


# -- the project's own ------------------------------------------------------------------------------------------------


def source_key(name: str) -> str:
    """Changes with every file that goes into the image."""
    folders = ("api", "operator", "docs") if name == "api" else ("api", "operator")
    files = [file for entry in (*_SOURCES, *folders) for file in _files(CHECKOUT / entry)]
    return digest(*(part for file in files for part in (str(file.relative_to(CHECKOUT)), file.read_bytes())))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if child.name != "__pycache__" and child.suffix != ".pyc":
                yield from _files(child)


def _build(name: str) -> Image:
    if name in PROJECT:
        return _cached(name, source_key(name), lambda: _buildah(name))
    if name in GO_SERVERS:
        program = programs.program(GO_SERVERS[name].program)
        return _cached(name, program.parent.name, lambda: _go_server(name, program))
    root = rootfs.server(name)
    return _cached(name, root.name, lambda: _server(name, root))


def _server(name: str, root: Path) -> Image:
    server = rootfs.SERVERS[name].programs[0]
    user = f"{rootfs.UID}:{rootfs.UID}"
    config = Config(entrypoint=("docker-entrypoint.sh",), command=(server,), user=user, workdir="/data")
    return store().make(reference(name), {"/": root}, config)


def _go_server(name: str, program: Path) -> Image:
    server = GO_SERVERS[name]
    files = {server.path: program}
    if _CERTIFICATES.exists():
        files[str(_CERTIFICATES)] = _CERTIFICATES
    return store().make(reference(name), files, server.config)


def _buildah(name: str) -> Image:
    need("buildah", "runc")
    base = _python_image()
    built = f"localhost/ragkube-{name}"
    with tempfile.TemporaryDirectory() as folder:
        command = ["bud", "--isolation", "chroot", "--network", "host", "--layers", "--pull-never"]
        command += ["--build-arg", f"PYTHON_IMAGE={base}", "--target", name, "-t", built]
        buildah(*command, *_machine_volumes(Path(folder)), "-f", str(CHECKOUT / "Dockerfile"), str(CHECKOUT))
    buildah("push", "-q", built, f"oci:{store().root}:{name}")
    return store().adopt(name, reference(name))


def _python_image() -> str:
    tar = rootfs.python_base()
    tag = f"localhost/{tar.stem}:1"
    if tag not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        with tempfile.TemporaryDirectory(dir=tar.parent) as folder:
            (Path(folder) / "rootfs.tar").hardlink_to(tar)
            (Path(folder) / "Dockerfile").write_text("FROM scratch\nADD rootfs.tar /\n")
            buildah("bud", "--isolation", "chroot", "-t", tag, folder)
    return tag


def buildah(*arguments: str) -> str:
    """Run buildah on a store of our own: the user's images stay as they are."""
    store = cache_root() / "buildah"
    return run(["buildah", "--root", store / "root", "--runroot", store / "run", *arguments])


def _machine_volumes(folder: Path) -> list[str]:
    """This machine's certificates and pip settings, for the build alone: none of it goes into an image."""
    found: dict[str, str] = {}
    for file in (Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"):
        parser = configparser.RawConfigParser()
        parser.read(file)
        for section in {"global", "install"} & set(parser.sections()):
            found |= dict(parser.items(section))
    wanted = (
        "INDEX_URL",
        "EXTRA_INDEX_URL",
        "FIND_LINKS",
        "NO_INDEX",
        "TRUSTED_HOST",
        "CERT",
        "PROXY",
        "DEFAULT_TIMEOUT",
    )
    found |= {
        key.lower().replace("_", "-"): os.environ[f"PIP_{key}"]
        for key in wanted
        if os.environ.get(f"PIP_{key}")
    }
    settings = folder / "pip.conf"
    settings.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in found.items()))
    links = [link for link in found.get("find-links", "").split() if Path(link).is_dir()]
    paths = {"/etc/pip.conf": str(settings), **{link: link for link in links}}
    if _CERTIFICATES.exists():
        paths[str(_CERTIFICATES.parent)] = str(_CERTIFICATES.parent)
    return [word for inside, outside in paths.items() for word in ("-v", f"{outside}:{inside}:ro")]


# -- with Docker ------------------------------------------------------------------------------------------------------


def _with_docker(name: str) -> Path:
    key = source_key(name) if name in PROJECT else digest(reference(name))
    target = cache_root() / "docker" / f"{name}-{key}.tar"
    with locked("images"):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            for old in target.parent.glob(f"{name}-*.tar"):
                old.unlink()
            with Timer(f"image {reference(name)}"):
                _docker(name, target)
    return target


def _docker(name: str, target: Path) -> None:
    docker = shutil.which("docker")
    if not docker:
        raise TestbedError("docker is not installed")
    if name in PROJECT:
        run([docker, "build", "--target", name, "-t", reference(name), str(CHECKOUT)])
    else:
        run([docker, "pull", reference(name)])
    fresh = target.with_suffix(".part")
    run([docker, "save", "-o", fresh, reference(name)])
    fresh.rename(target)
