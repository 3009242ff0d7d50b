"""``ragkube run FILE``: the RagDeployment that a cluster takes, as processes on this machine."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ragkube_operator import (
    cli_manifest,
    cli_status,
    local_data,
    local_process,
    local_settings,
    local_sources,
)
from ragkube_operator.cli_documents import report_failures
from ragkube_operator.cli_output import FAILED, USAGE, CliError, Output, plural
from ragkube_operator.client import JSON, ApiError, Client, UnreachableError

EXAMPLE_QUESTION = "ragkube.dev/example-question"
_POLL_SECONDS = 0.1
_SLOW_SECONDS = 5.0


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    file: Path
    name: str | None
    host: str
    port: int
    documents: Path | None
    data: Path
    secrets: Path
    anthropic_api_key: str | None
    verbose: bool


class _Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived; not an error, so no handler of errors may take it."""


@dataclass(frozen=True)
class _Running:
    """One run: its output, its child, and how to reach it."""

    output: Output
    child: local_process.Child
    client: Client
    log: Path


def run(options: Options, output: Output, environment: Mapping[str, str]) -> int:
    """Serve until a signal ends it; returns the exit code.

    Raises:
        CliError: it cannot start, or the API ended by itself.
    """
    began = time.monotonic()
    manifest, others = cli_manifest.load_one(options.file, options.name)
    for other in others:
        output.warn(f"{options.file}: {other} is for a cluster and not used here")
    with _signals():
        try:
            _serve(options, manifest, output, environment, began)
        except _Stopped:
            _ignore_signals()
            output.line()
            output.line("stopped")
    return 0


def _serve(
    options: Options,
    manifest: cli_manifest.Manifest,
    output: Output,
    environment: Mapping[str, str],
    began: float,
) -> None:
    data = options.data.absolute()
    port = free_port(options.host, options.port)
    with local_data.opened(data) as lock:
        settings = local_settings.build(manifest, options, data, port)
        path = local_data.write_private(data, local_data.SETTINGS, json.dumps(settings, indent=2))
        log = data / local_data.LOG
        echo = output.line if options.verbose else None
        url = f"http://{_reachable(options.host)}:{port}"
        with (
            local_process.started(path, log, share=lock, environment=environment, echo=echo) as child,
            Client(url, api_key=local_settings.admin_key(settings)) as client,
        ):
            running = _Running(output, child, client, log)
            _wait_ready(running)
            output.line(f"{manifest.name} answers at {url} after {time.monotonic() - began:.1f} s")
            _wait_synced(running)
            forgotten = local_sources.forget_others(client, settings, manifest)
            if forgotten:
                output.line(f"removed {plural(forgotten, 'document')} of sources that are not used any more")
            local_settings.explain(output, manifest, settings, data, url, _example(manifest, options))
            _wait_end(running)


def _example(manifest: cli_manifest.Manifest, options: Options) -> str:
    """A question that the file's own documents answer, where it names one."""
    named = manifest.deployment.metadata.annotations.get(EXAMPLE_QUESTION)
    return named if named and options.documents is None else "YOUR QUESTION"


def free_port(host: str, port: int) -> int:
    """The port, or any free one for 0.

    Raises:
        CliError: it is taken or may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise CliError(f"--host {host!r} is no address of this machine", exit_code=USAGE) from error
    except PermissionError as error:
        raise CliError(f"port {port} needs more rights; choose one above 1023 with --port") from error
    except OSError as error:
        if "in use" in (error.strerror or "").lower():
            msg = f"port {port} on {host} is in use; choose another with --port, or --port 0 for any free one"
            raise CliError(msg) from error
        raise CliError(f"cannot listen on {host}: {error.strerror}", exit_code=USAGE) from error


def _reachable(host: str) -> str:
    """The address by which this machine reaches what listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104


def _wait_ready(running: _Running) -> None:
    """Return when /readyz says so; say what it waits for when that takes long."""
    slow = time.monotonic() + _SLOW_SECONDS
    said: list[str] = []
    while True:
        _check(running)
        try:
            ready, health = running.client.ready()
        except (UnreachableError, CliError):
            ready, health = False, {}
        if ready:
            return
        if time.monotonic() > slow:
            waiting = [": ".join(row) for row in cli_status.dependency_rows(health) if row[1] != "up"]
            if waiting != said:
                said = waiting
                running.output.warn(
                    f"waiting for {'; '.join(waiting) or 'the API to start'} (log: {running.log})"
                )
        time.sleep(_POLL_SECONDS)


def _wait_synced(running: _Running) -> None:
    """Show how far the sources are until all are done; an external cache that is away hides it, no more."""
    try:
        sources = _follow_sources(running)
    except ApiError as error:
        running.output.warn(f"how far the sources are is not known: {error.message}")
        return
    if sources:
        running.output.line(cli_status.sentence(sources))
        report_failures(running.output, cli_status.failures(sources))


def _follow_sources(running: _Running) -> list[JSON]:
    sources = running.client.sources()
    if not sources:
        return []
    with running.output.progress("Indexing documents") as progress:
        while True:
            _check(running)
            done, total = (sum(int(source[key]) for source in sources) for key in ("done", "total"))
            skipped = sum(len(source["failures"]) for source in sources)
            progress.update(done, total, f"{skipped} skipped" if skipped else "")
            if all(source["state"] in {"synced", "failed"} for source in sources):
                return sources
            time.sleep(2 * _POLL_SECONDS)
            sources = running.client.sources()


def _wait_end(running: _Running) -> None:
    while running.child.exit_code(timeout=1) is None:
        pass
    _check(running)


def _check(running: _Running) -> None:
    code = running.child.exit_code()
    if code is not None:
        reason = running.child.last_words()
        raise CliError(
            f"the API ended (exit code {code}): {reason}", exit_code=FAILED, details=(f"log: {running.log}",)
        )


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the signals that end a command into one exception."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> Any:
    del number, frame
    _ignore_signals()
    raise _Stopped


def _ignore_signals() -> None:
    """A second Ctrl-C must not interrupt the end of the child."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
