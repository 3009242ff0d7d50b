"""The images that the manifests name: the project's own two from its Dockerfile, and the servers beside them.

With Docker they are built and pulled as everybody does it. Without, buildah builds the same Dockerfile on a base made of
Debian packages, and the servers come from Debian packages or from their published Go modules.
"""

import configparser
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cluster.testbed import archive, programs, rootfs
from cluster.testbed.paths import CHECKOUT, TestbedError, cache_root, digest, locked
from cluster.testbed.shell import Timer, need, run

SERVERS = {"redis": "redis:8.0", "valkey": "valkey/valkey:8.1", "weaviate": "semitechnologies/weaviate:1.39.0"}
PROJECT = ("api", "operator")
NAMES = (*PROJECT, *SERVERS)

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
    raise TestbedError(f"unknown image {name!r}; known: {', '.join(NAMES)}")


def archives(names: Sequence[str] = (), *, docker: bool = False) -> list[Path]:
    """Archives of the images, built where the cache does not have them."""
    make = _with_docker if docker else _without_docker
    return [make(name) for name in names or NAMES]


def _target(name: str, key: str) -> Path:
    return cache_root() / "images" / f"{name}-{key}.tar"


def _cached(name: str, key: str, make: Callable[[Path], None]) -> Path:
    target = _target(name, key)
    if target.exists():
        target.touch()
        return target
    with locked("images"):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_suffix(".part")
            fresh.unlink(missing_ok=True)
            with Timer(f"image {reference(name)}"):
                make(fresh)
            fresh.rename(target)
            _forget_old(name, keep=3)
    return target


def _forget_old(name: str, keep: int) -> None:
    found = sorted((cache_root() / "images").glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime)
    for old in found[:-keep]:
        old.unlink()


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


def _without_docker(name: str) -> Path:
    if name in PROJECT:
        return _cached(name, source_key(name), lambda target: _buildah(name, target))
    if name == "weaviate":
        program = programs.program("weaviate")
        return _cached(name, program.parent.name, lambda target: _weaviate(program, target))
    root = rootfs.server(name)
    return _cached(name, root.name, lambda target: _server(name, root, target))


def _server(name: str, root: Path, target: Path) -> None:
    server = rootfs.SERVERS[name].programs[0]
    config = archive.Config(
        entrypoint=("docker-entrypoint.sh",), command=(server,), user=f"{rootfs.UID}:{rootfs.UID}", workdir="/data"
    )
    archive.write(target, reference(name), {"/": root}, config)


def _weaviate(program: Path, target: Path) -> None:
    config = archive.Config(
        entrypoint=("/bin/weaviate",),
        command=("--host", "0.0.0.0", "--port", "8080", "--scheme", "http"),  # as in the public image
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "ca-certificates.crt"
        bundle.write_bytes(_CERTIFICATES.read_bytes() if _CERTIFICATES.exists() else b"")
        files = {"/bin/weaviate": program, "/etc/ssl/certs/ca-certificates.crt": bundle}
        archive.write(target, reference("weaviate"), files, config)


def _buildah(name: str, target: Path) -> None:
    need("buildah", "runc")
    base = _python_image()
    with tempfile.TemporaryDirectory() as folder:
        command = ["bud", "--isolation", "chroot", "--network", "host", "--layers", "--pull-never"]
        command += ["--build-arg", f"PYTHON_IMAGE={base}", "--target", name, "-t", f"localhost/ragkube-{name}"]
        buildah(*command, *_machine_volumes(Path(folder)), "-f", str(CHECKOUT / "Dockerfile"), str(CHECKOUT))
    buildah("push", f"localhost/ragkube-{name}", f"docker-archive:{target}:{reference(name)}")


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
    wanted = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "TRUSTED_HOST", "CERT", "PROXY", "DEFAULT_TIMEOUT")
    found |= {key.lower().replace("_", "-"): os.environ[f"PIP_{key}"] for key in wanted if os.environ.get(f"PIP_{key}")}
    settings = folder / "pip.conf"
    settings.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in found.items()))
    links = [link for link in found.get("find-links", "").split() if Path(link).is_dir()]
    paths = {"/etc/pip.conf": str(settings), **{link: link for link in links}}
    if _CERTIFICATES.exists():
        paths[str(_CERTIFICATES.parent)] = str(_CERTIFICATES.parent)
    return [word for inside, outside in paths.items() for word in ("-v", f"{outside}:{inside}:ro")]


# -- with Docker ------------------------------------------------------------------------------------------------------


def _with_docker(name: str) -> Path:
    if name in PROJECT:
        return _cached(name, f"docker-{source_key(name)}", lambda target: _docker_build(name, target))
    key = f"docker-{digest(reference(name))}"
    return _cached(name, key, lambda target: _docker_pull(name, target))


def _docker() -> str:
    found = shutil.which("docker")
    if not found:
        raise TestbedError("docker is not installed")
    return found


def _docker_build(name: str, target: Path) -> None:
    run([_docker(), "build", "--target", name, "-t", reference(name), str(CHECKOUT)])
    run([_docker(), "save", "-o", target, reference(name)])


def _docker_pull(name: str, target: Path) -> None:
    run([_docker(), "pull", reference(name)])
    run([_docker(), "save", "-o", target, reference(name)])
