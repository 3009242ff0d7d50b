"""The data directory of ``ragkube run``: owned by one run, and every trouble with it a sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragkube_operator.cli_output import CliError

LOCK, SETTINGS, LOG, IDENTITY = "run.lock", "settings.json", "api.log", "identity"
_TAKEOVER_SECONDS = 3.0
_REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOTDIR: "it is a file, or lies under one",
    errno.EEXIST: "it is a file",
    errno.ENOENT: "it cannot be created there",
}


def trouble(path: Path, error: OSError) -> CliError:
    """What is wrong with the data directory, and the way out."""
    reason = _REASONS.get(error.errno or 0) or error.strerror or "unknown error"
    return CliError(f"cannot write to the data directory {path}: {reason}; choose another with --data")


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Create the directory and own it; yields the lock's descriptor, which a child may share.

    Raises:
        CliError: it cannot be written to, or another run owns it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise trouble(path, error) from error
    try:
        _lock(path, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> None:
    """Take the lock; a run whose owner was killed may need a moment to let go."""
    deadline = time.monotonic() + _TAKEOVER_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            if _lives(owner) or time.monotonic() > deadline:
                msg = f"another `ragkube run` (process {owner or 'unknown'}) uses the data directory {path}"
                raise CliError(f"{msg}; end it, or choose another with --data") from error
            time.sleep(0.05)
        except OSError as error:
            raise trouble(path, error) from error
        else:
            _write_owner(path, descriptor)
            return


def _write_owner(path: Path, descriptor: int) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise trouble(path, error) from error


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def identity(directory: Path) -> str:
    """A name for this directory's index that no other one has; it goes when the directory is deleted."""
    try:
        return (directory / IDENTITY).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return write_private(directory, IDENTITY, uuid.uuid4().hex[:12]).read_text(encoding="ascii")
    except OSError as error:
        raise trouble(directory, error) from error


def write_private(directory: Path, name: str, content: str) -> Path:
    """Replace a file that only its owner may read, by rename.

    Raises:
        CliError: there is no room or no permission.
    """
    target = directory / name
    scratch = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        scratch.replace(target)
    except OSError as error:
        raise trouble(directory, error) from error
    return target
