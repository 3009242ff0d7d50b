"""The embedded store's directory: its lock, its SQLite file, and sentences for what goes wrong with them."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ragkube_api.errors import RagkubeError, StartupError, StorageFullError, StoreUnavailableError

DATABASE = "documents.sqlite3"
LOCK = "lock"
SCHEMA_VERSION = 1
_NO_ROOM = 2 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tenants (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS documents (
    key INTEGER PRIMARY KEY AUTOINCREMENT, tenant INTEGER NOT NULL, id TEXT NOT NULL, version TEXT NOT NULL,
    sha256 TEXT NOT NULL, fingerprint TEXT NOT NULL, content_type TEXT NOT NULL, title TEXT NOT NULL,
    metadata TEXT NOT NULL, source TEXT, size INTEGER NOT NULL, characters INTEGER NOT NULL,
    chunks INTEGER NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL, embedder TEXT NOT NULL,
    dimensions INTEGER NOT NULL, text BLOB NOT NULL, vectors BLOB NOT NULL, UNIQUE (tenant, id)
);
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL, stop INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS chunks_of_document ON chunks (document, ordinal);
CREATE TABLE IF NOT EXISTS attributes (
    document INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (document, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS documents_with ON attributes (name, value, document);
"""


@contextmanager
def directory_lock(path: Path) -> Iterator[None]:
    """Own the directory; the system lets go of it when the process ends, however it ends.

    Raises:
        StartupError: another process owns it, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartupError(_sentence(path, error)) from error
    try:
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        who = f"process {owner}" if owner else "another process"
        msg = f"the data directory {path} is in use by {who}; stop it or choose another directory"
        raise StartupError(msg) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError as error:
        raise StartupError(_sentence(path, error)) from error


def _sentence(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk of the data directory {path} is full; make room or choose another directory"
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return f"the data directory {path} cannot be written ({os.strerror(error.errno).lower()})"
    return f"the data directory {path} cannot be used ({(error.strerror or 'unknown error').lower()})"


def connect(path: Path) -> sqlite3.Connection:
    """A connection for one thread at a time, in autocommit: transactions are begun in so many words."""
    connection = sqlite3.connect(path / DATABASE, timeout=10, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA cache_size = -32768")
    return connection


def prepare(path: Path) -> None:
    """Create or check the schema, and prove that the directory can be written.

    Raises:
        StartupError: damaged, written by a newer version, read-only or full.
    """
    try:
        with closing(connect(path)) as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                msg = (
                    f"the data directory {path} was written by a newer version of ragkube; upgrade to read it"
                )
                raise StartupError(msg)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
    except sqlite3.Error as error:
        if (primary_code(error)) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            msg = (
                f"{path / DATABASE} is damaged; restore it from a backup, or delete it to index from scratch"
            )
            raise StartupError(msg) from error
        raise StartupError(translate(error, path).message) from error


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 when the error has none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def translate(error: sqlite3.Error, path: Path) -> RagkubeError:
    """What to tell a client."""
    code = primary_code(error)
    full = code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path).free < _NO_ROOM
    if code == sqlite3.SQLITE_FULL or full:
        return StorageFullError(f"the disk of the data directory {path} is full; make room and try again")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return StoreUnavailableError(f"the data directory {path} cannot be written")
    return StoreUnavailableError("the document store cannot read or write its files")
