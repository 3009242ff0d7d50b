"""Image archives with one layer, written without a container engine: `ctr images import` and `docker load` read them."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Config:
    """What the image runs by default."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    workdir: str = "/"

    def document(self) -> dict[str, Any]:
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "User": self.user,
            "WorkingDir": self.workdir,
            "Env": [path],
        }


def write(target: Path, reference: str, files: Mapping[str, Path], config: Config) -> None:
    """Write an archive of `files` (path in the image -> path here; a folder is added with all it holds)."""
    layer = _layer(files)
    diff = hashlib.sha256(layer).hexdigest()
    document = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config.document(),
        "created": "1970-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
        "history": [{"created_by": "ragkube testbed"}],
    }
    described = json.dumps(document, sort_keys=True).encode()
    config_name = hashlib.sha256(described).hexdigest() + ".json"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [f"{diff}/layer.tar"]}]
    fresh = target.with_suffix(".new")
    with tarfile.open(fresh, "w") as tar:
        for name, data in (
            (config_name, described),
            (f"{diff}/layer.tar", layer),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add_bytes(tar, name, data)
    fresh.rename(target)


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, source in files.items():
            tar.add(source, arcname=name.lstrip("/") or ".", filter=_anonymous)
    return buffer.getvalue()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
