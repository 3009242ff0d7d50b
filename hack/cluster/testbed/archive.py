"""A store of images (an OCI layout): written without a container engine, loaded into nodes by what they lack."""

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Image:
    """A name, and the digest (hex) of its manifest in the store."""

    reference: str
    manifest: str


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


def full_name(reference: str) -> str:
    """How a container runtime spells a short name: redis:8.0 is docker.io/library/redis:8.0."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"


class Store:
    """An OCI layout on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest

    def adopt(self, tag: str, reference: str) -> Image:
        """An image that another program has pushed under a tag, with its layers unpacked.

        An unpacked layer has the digest that the builder knows it by: it is not pushed, nor loaded, a second time.
        """
        pushed = json.loads(self.blob(self._tagged(tag)).read_bytes())
        config = pushed["config"]["digest"].removeprefix("sha256:")
        diffs = json.loads(self.blob(config).read_bytes())["rootfs"]["diff_ids"]
        layers = [diff.removeprefix("sha256:") for diff in diffs]
        for packed, layer in zip(pushed["layers"], layers, strict=True):
            self._unpack(packed["digest"].removeprefix("sha256:"), layer)
        return Image(reference, self._manifest(config, layers))

    def _tagged(self, tag: str) -> str:
        index = json.loads((self.root / "index.json").read_bytes())
        for entry in index["manifests"]:
            if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
                return str(entry["digest"]).removeprefix("sha256:")
        raise KeyError(tag)

    def _unpack(self, packed: str, layer: str) -> None:
        target = self.blob(layer)
        if target.exists():
            return
        fresh = target.with_suffix(f".{os.getpid()}")
        with gzip.open(self.blob(packed)) as source, fresh.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        fresh.rename(target)

    def make(self, reference: str, files: Mapping[str, Path], config: Config) -> Image:
        """An image of one layer: `files` (path in the image -> path here; a folder is added with all it holds)."""
        layer = self._put_layer(files)
        document = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": config.document(),
            "created": "1970-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
            "history": [{"created_by": "ragkube testbed"}],
        }
        config_blob = self._put(json.dumps(document, sort_keys=True).encode())
        return Image(reference, self._manifest(config_blob, [layer]))

    def _manifest(self, config: str, layers: Sequence[str]) -> str:
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._descriptor(_CONFIG, config),
            "layers": [self._descriptor(_LAYER, layer) for layer in layers],
        }
        return self._put(json.dumps(manifest, sort_keys=True).encode())

    def blobs(self, image: Image) -> list[str]:
        """The digests of everything that belongs to an image."""
        manifest = json.loads(self.blob(image.manifest).read_bytes())
        parts = [manifest["config"], *manifest["layers"]]
        return [image.manifest, *(part["digest"].removeprefix("sha256:") for part in parts)]

    def complete(self, image: Image) -> bool:
        return self.blob(image.manifest).exists() and all(
            self.blob(one).exists() for one in self.blobs(image)
        )

    def export(self, images: Sequence[Image], stream: IO[bytes], without: Container[str] = ()) -> None:
        """Write an archive for `ctr images import`, leaving out blobs that the node has."""
        entries = [
            {
                **self._descriptor(_MANIFEST, image.manifest),
                "annotations": {"io.containerd.image.name": full_name(image.reference)},
            }
            for image in images
        ]
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
        needed = dict.fromkeys(digest for image in images for digest in self.blobs(image))
        always = {image.manifest for image in images}
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
            _add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add_bytes(tar, "index.json", json.dumps(index).encode())
            for digest in needed:
                if digest in always or digest not in without:
                    tar.add(self.blob(digest), arcname=f"blobs/sha256/{digest}")

    def forget(self, kept: Iterable[Image]) -> None:
        """Delete the blobs that no kept image has."""
        wanted = {digest for image in kept for digest in self.blobs(image)}
        for blob in (self.root / "blobs" / "sha256").iterdir():
            if blob.name not in wanted:
                blob.unlink()

    def _descriptor(self, kind: str, digest: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": self.blob(digest).stat().st_size}

    def _put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        target = self.blob(digest)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(data)
            fresh.rename(target)
        return digest

    def _put_layer(self, files: Mapping[str, Path]) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, source in files.items():
                tar.add(source, arcname=name.lstrip("/") or ".", filter=_anonymous)
        return self._put(buffer.getvalue())


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
