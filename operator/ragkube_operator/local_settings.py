"""The settings file of a run on one machine, and what its parts stand in for."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragkube_operator import local_data, render
from ragkube_operator.cli_output import USAGE, CliError, Output

if TYPE_CHECKING:
    from ragkube_operator.cli_manifest import Manifest
    from ragkube_operator.local import Options

JSON = dict[str, Any]
GRACE_SECONDS = 1
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def build(manifest: Manifest, options: Options, data: Path, port: int) -> JSON:
    """Settings for one process on this machine.

    Raises:
        CliError: a secret has no value, or a folder does not exist.
    """
    base = options.file.absolute().parent
    settings: JSON = render.local_settings(
        manifest.deployment, data=data, port=port, base=base, secrets=options.secrets.absolute()
    )
    settings["server"] = settings.get("server", {}) | {
        "host": options.host, "port": port, "drain_seconds": 0, "grace_seconds": GRACE_SECONDS,
    }  # fmt: skip
    settings.setdefault("documents", {})["sync_in_api"] = True
    if _has_other_writers(settings):
        settings["cache"]["enabled"] = False
    _keep_answers_apart(settings, data)
    if options.documents is not None:
        _replace_sources(settings, options.documents.absolute())
    _check_sources(settings)
    _provide_secrets(settings, options, data)
    return settings


def _keep_answers_apart(settings: JSON, data: Path) -> None:
    """Another machine with the same file and Redis has other documents, so it must not share our answers."""
    backend = settings["cache"].get("backend", {})
    if backend.get("kind") == "redis" and settings["store"]["kind"] == "embedded":
        backend["key_prefix"] = f"{backend.get('key_prefix', 'ragkube')}.{local_data.identity(data)}"


def _has_other_writers(settings: JSON) -> bool:
    """A cache in this process cannot know of documents that others write into an external store."""
    in_memory = settings["cache"].get("backend", {}).get("kind", "memory") == "memory"
    return bool(settings["store"]["kind"] == "weaviate" and in_memory)


def admin_key(settings: JSON) -> str | None:
    """The key that a run with ``auth.mode: ApiKey`` asks for."""
    file = settings.get("auth", {}).get("admin_key_file")
    return Path(file).read_text().strip() if file else None


def _replace_sources(settings: JSON, folder: Path) -> None:
    """One source in place of all others; it keeps the first one's name, so that its documents are replaced."""
    documents = settings.setdefault("documents", {})
    first = next(iter(documents.get("sources", ())), {"name": "documents"})
    kept = {key: first[key] for key in ("name", "interval_seconds") if key in first}
    documents["sources"] = [{"kind": "directory", "path": str(folder), **kept}]


def _check_sources(settings: JSON) -> None:
    for source in settings.get("documents", {}).get("sources", ()):
        path = Path(source["path"])
        if not path.is_dir():
            problem = "is no folder" if path.exists() else "does not exist"
            msg = f"the folder {path} of source {source['name']!r} {problem}; name another with --documents"
            raise CliError(msg, exit_code=USAGE)


def _provide_secrets(settings: JSON, options: Options, data: Path) -> None:
    """See that every file that a setting names is there; the admin key is made when it is missing."""
    llm = settings.get("llm", {})
    key_file = llm.get("api_key_file")
    if options.anthropic_api_key and llm.get("kind") == "anthropic" and not _exists(key_file):
        key = local_data.write_private(data, "secrets/anthropic-api-key", options.anthropic_api_key)
        llm["api_key_file"] = str(key)
    admin = settings.get("auth", {}).get("admin_key_file")
    if admin and not _exists(admin):
        local_data.write_private(Path(admin).parent, Path(admin).name, secrets.token_urlsafe(32))
    missing = [(name, file) for name, file in _files(settings) if not _exists(file)]
    if missing:
        details = [f"{name}: write the value into {file}" for name, file in missing]
        hint = "; or set ANTHROPIC_API_KEY" if any(name.startswith("llm.") for name, _ in missing) else ""
        msg = f"{options.file} refers to Secrets whose values are not on this machine{hint}"
        raise CliError(msg, exit_code=USAGE, details=details)
    if llm.get("kind") == "anthropic" and not llm.get("api_key_file") and not llm.get("base_url"):
        raise CliError(
            "set ANTHROPIC_API_KEY: spec.llm.type is Anthropic and names no Secret", exit_code=USAGE
        )


def _exists(file: str | None) -> bool:
    return bool(file) and Path(str(file)).is_file()


def _files(value: JSON, path: str = "") -> Iterator[tuple[str, str]]:
    """Every setting that names a file with a secret, with its path."""
    for key, inner in value.items():
        where = f"{path}.{key}" if path else key
        if isinstance(inner, dict):
            yield from _files(inner, where)
        elif key.endswith("_file") and inner:
            yield where, str(inner)


def shown(path: Path) -> str:
    """Relative where that is shorter to read."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)


def command() -> str:
    """How this command can be called again: by its name when that is on the path."""
    program = Path(sys.argv[0])
    if program.name.startswith("kubectl-"):
        return "kubectl ragkube"
    if shutil.which("ragkube") or program.name != "ragkube":
        return "ragkube"
    return shown(program.absolute())


def explain(output: Output, manifest: Manifest, settings: JSON, data: Path, url: str, question: str) -> None:
    """How to ask, and which parts stand in for parts of a cluster."""
    key_file = settings.get("auth", {}).get("admin_key_file")
    authorization = f' -H "Authorization: Bearer $(cat {key_file})"' if key_file else ""
    body = shlex.quote(json.dumps({"question": question}))
    output.line()
    head = f"  curl -s {url}/v1/query -H 'Content-Type: application/json'{authorization}"
    output.line(f"{head} \\\n    -d {body}")
    output.line(f"  {command()} ask {shlex.quote(question)}{_client_options(url, key_file)}")
    if not settings.get("documents", {}).get("sources"):
        output.line(f"  {command()} ingest FOLDER{_client_options(url, key_file)}")
    output.line()
    output.table(("IN A CLUSTER", "ON THIS MACHINE"), stand_ins(manifest, settings, data), indent="  ")
    output.line()
    if not key_file and settings["server"]["host"] not in _LOOPBACK:
        output.warn(
            "  anyone who reaches this address may read and change documents; spec.auth.mode: ApiKey asks for a key"
        )
    output.line(f"API pages: {url}/docs · log: {shown(data / local_data.LOG)} · end: Ctrl-C")


def _client_options(url: str, key_file: str | None) -> str:
    address = "" if url.endswith("//127.0.0.1:8080") else f" --url {url}"
    return address + (f" --api-key-file {key_file}" if key_file else "")


def stand_ins(manifest: Manifest, settings: JSON, data: Path) -> list[tuple[str, str]]:
    """Part for part: what a cluster would run, and what runs here."""
    spec = manifest.deployment.spec
    rows = [(f"{spec.api.replicas} API replicas behind a Service", "1 process")]
    if settings["store"]["kind"] == "embedded":
        rows.append(("Weaviate", f"SQLite (BM25) and exact vectors in {shown(data)}"))
    cache = settings.get("cache", {})
    if _has_other_writers(settings):
        rows.append(("Redis Cluster", "no answer cache: others may write into the external Weaviate"))
    elif cache.get("enabled", True) and cache.get("backend", {}).get("kind", "memory") == "memory":
        rows.append(("Redis Cluster", "answer cache in the process"))
    if settings.get("documents", {}).get("sources"):
        rows.append(("worker pod that reads the sources", "the same process"))
    if settings.get("auth", {}).get("mode", "none") == "none":
        rows.append(("admin key in a Secret", f"no key, only {settings['server']['host']} is served"))
    same = _same(settings)
    return [*rows, ("the same on both", ", ".join(same))]


def _same(settings: JSON) -> list[str]:
    embedding, llm = settings.get("embedding", {}), settings.get("llm", {})
    embeds = {"openai": f"embeddings of {embedding.get('model')} at {embedding.get('url')}"}
    answers = {"anthropic": f"answers of {llm.get('model')}"}
    same = [
        embeds.get(embedding.get("kind", ""), "wordllama embeddings"),
        answers.get(llm.get("kind", ""), "extractive answers (no language model)"),
    ]
    same += ["external Weaviate"] if settings["store"]["kind"] == "weaviate" else []
    external = settings.get("cache", {}).get("backend", {}).get("kind") == "redis"
    return same + (["external Redis Cluster"] if external else [])
