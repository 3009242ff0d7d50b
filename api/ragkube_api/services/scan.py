"""What a directory holds: visible regular files that match, nothing outside of it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path


@dataclass(slots=True)
class Scan:
    """Relative POSIX paths with their sizes; what could not be looked at stands in ``failures``."""

    files: dict[str, int] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    unread_directories: list[str] = field(default_factory=list)

    def may_hold(self, path: str) -> bool:
        """Whether the path may still exist, seen or not: then its document must stay."""
        return (
            path in self.files
            or path in self.failures
            or any(path.startswith(f"{directory}/") for directory in self.unread_directories)
        )


def scan(root: Path, include: Sequence[str]) -> Scan:
    """Walk the directory. Raises ``OSError`` when the root itself cannot be read."""
    result = Scan()
    real_root = root.resolve(strict=True)
    patterns = [_pattern(glob) for glob in include]
    for entry, path in _walk(real_root, "", result):
        if not any(pattern.fullmatch(path) for pattern in patterns):
            continue
        _look_at(entry, path, real_root, result)
    return result


def _walk(directory: Path, prefix: str, result: Scan) -> Iterator[tuple[os.DirEntry[str], str]]:
    with os.scandir(directory) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        path = f"{prefix}{entry.name}"
        if not _encodable(path):
            result.failures[path.encode("utf-8", "backslashreplace").decode()] = _UNNAMEABLE
        elif entry.is_dir(follow_symlinks=False):
            yield from _descend(directory / entry.name, path, result)
        elif not (entry.is_symlink() and entry.is_dir()):
            # A link to a directory is not followed: it may lead out, or round in circles.
            yield entry, path


def _descend(directory: Path, path: str, result: Scan) -> Iterator[tuple[os.DirEntry[str], str]]:
    try:
        yield from _walk(directory, f"{path}/", result)
    except OSError as error:
        result.failures[path] = unreadable(error)
        result.unread_directories.append(path)


def _look_at(entry: os.DirEntry[str], path: str, root: Path, result: Scan) -> None:
    try:
        if entry.is_symlink() and not Path(entry.path).resolve(strict=True).is_relative_to(root):
            result.failures[path] = ("source-path-outside", "The link leads out of the source's directory.")
            return
        status = entry.stat()
    except OSError as error:
        result.failures[path] = unreadable(error)
        return
    if stat.S_ISREG(status.st_mode):
        result.files[path] = status.st_size


def unreadable(error: OSError) -> tuple[str, str]:
    """Code and sentence for something the system refuses to give."""
    return ("source-unreadable", f"Cannot be read: {error.strerror or 'unknown error'}.")


_UNNAMEABLE = ("source-path-invalid", "The name is not valid UTF-8.")


def _encodable(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    """``**/`` spans directories (also none), ``*`` and ``?`` stay within one, ``[…]`` is a set."""
    out, rest = "", glob.removeprefix("./")
    while rest:
        piece, rest = _piece(rest)
        out += piece
    return re.compile(out, re.DOTALL)


def _piece(rest: str) -> tuple[str, str]:
    for token, regex in (("**/", "(?:.*/)?"), ("**", ".*"), ("*", "[^/]*"), ("?", "[^/]")):
        if rest.startswith(token):
            return regex, rest[len(token) :]
    found = re.match(r"\[(!?)([^\]/]+)\]", rest)
    if found:
        members = re.sub(r"([\\\[\]^])", r"\\\1", found[2])
        return f"[{'^' if found[1] else ''}{members}]", rest[found.end() :]
    return re.escape(rest[0]), rest[1:]
