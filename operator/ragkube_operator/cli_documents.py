"""``ragkube ingest`` and ``ragkube documents``: files in, and what is there."""

from __future__ import annotations

import json
import mimetypes
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from ragkube_operator.cli_output import USAGE, CliError, Output, moment, plural
from ragkube_operator.client import JSON, ApiError, Client

PARALLEL_UPLOADS = 4
SHOWN_FAILURES = 10
_TYPES = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".log": "text/plain",
    ".rst": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".json": "application/json",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}


@dataclass
class Tally:
    """What became of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        """``3 documents indexed, 1 unchanged, 1 failed``."""
        indexed = f"{plural(self.outcomes['indexed'], 'document')} indexed"
        return f"{indexed}, {self.outcomes['unchanged']:,} unchanged, {len(self.failures):,} failed"


def content_type(path: Path) -> str:
    """By the file's name; the API refuses what it does not read."""
    known = _TYPES.get(path.suffix.lower())
    return known or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def collect(paths: Sequence[Path], prefix: str = "") -> dict[str, Path]:
    """Document ids and their files: a directory's files by their relative path, hidden ones left out.

    Raises:
        CliError: a path is missing, nothing is found, or two files would be one document.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for name, file in _files(path):
            document_id = prefix + name
            if document_id in found:
                msg = f"{found[document_id]} and {file} would both be the document {document_id!r}; use --prefix"
                raise CliError(msg, exit_code=USAGE)
            found[document_id] = file
    if not found:
        raise CliError(f"no files in {', '.join(map(str, paths))}", exit_code=USAGE)
    return dict(sorted(found.items()))


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield path.name, path
        return
    if not path.is_dir():
        raise CliError(f"there is no file or directory {path}", exit_code=USAGE)
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            file = Path(folder) / name
            if not name.startswith(".") and file.is_file():
                yield file.relative_to(path).as_posix(), file


def ingest(client: Client, output: Output, files: dict[str, Path], metadata: JSON) -> Tally:
    """Upload the files; one that fails does not stop the others."""
    tally = Tally()
    with ThreadPoolExecutor(PARALLEL_UPLOADS) as pool, output.progress("Uploading") as progress:
        uploads = {pool.submit(_upload, client, name, path, metadata): name for name, path in files.items()}
        try:
            for done, upload in enumerate(as_completed(uploads), start=1):
                _count(tally, uploads[upload], upload)
                progress.update(done, len(files), f"{len(tally.failures)} failed" if tally.failures else "")
        except (CliError, KeyboardInterrupt):
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tally


def _upload(client: Client, document_id: str, path: Path, metadata: JSON) -> JSON:
    return client.put_document(document_id, path.read_bytes(), content_type(path), metadata)


def _count(tally: Tally, name: str, upload: Future[JSON]) -> None:
    try:
        result = upload.result()
    except ApiError as error:
        if error.status in {401, 403}:
            raise
        tally.failures[name] = "; ".join([error.message, *error.details])
    except OSError as error:
        tally.failures[name] = f"cannot be read: {error.strerror}"
    else:
        tally.outcomes["unchanged" if result.get("unchanged") else "indexed"] += 1


def report_failures(output: Output, failures: dict[str, str]) -> None:
    """The first failures with their reasons, and how many more there are."""
    for name, reason in sorted(failures.items())[:SHOWN_FAILURES]:
        output.warn(f"  {name}: {reason}")
    if len(failures) > SHOWN_FAILURES:
        output.warn(f"  … and {len(failures) - SHOWN_FAILURES:,} more")


def list_documents(client: Client, output: Output, *, as_json: bool) -> None:
    """Every document of the tenant."""
    if as_json:
        for document in client.documents():
            output.console.out(json.dumps(document, ensure_ascii=False), highlight=False)
        return
    rows = [_row(document) for document in client.documents()]
    if not rows:
        output.line("No documents yet. Add some with `ragkube ingest PATH`.")
        return
    output.table(("DOCUMENT", "TYPE", "BYTES", "CHUNKS", "UPDATED (UTC)"), rows)


def _row(document: JSON) -> tuple[str, ...]:
    kind = str(document["content_type"]).rsplit(".", 1)[-1].rsplit("/", 1)[-1]
    numbers = f"{document['size']:,}", f"{document['chunks']:,}"
    return str(document["id"]), kind, *numbers, moment(document["updated"])


def get_document(client: Client, output: Output, document_id: str, *, content: bool) -> None:
    """What is known of one document, or the text that is stored and cited."""
    if content:
        output.console.out(client.content(document_id), highlight=False, end="")
    else:
        output.console.out(
            json.dumps(client.document(document_id), indent=2, ensure_ascii=False), highlight=False
        )


def delete_documents(client: Client, output: Output, document_ids: Sequence[str]) -> None:
    """Remove them; a missing one ends the command."""
    for document_id in document_ids:
        client.delete_document(document_id)
        output.line(f"deleted {document_id}")
