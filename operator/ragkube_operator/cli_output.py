"""What the ``ragkube`` command prints: rich on a terminal, plain lines elsewhere, errors as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console
from rich.text import Text

FAILED, USAGE = 1, 2
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class CliError(Exception):
    """Ends the command with a sentence instead of a traceback."""

    def __init__(self, message: str, *, exit_code: int = FAILED, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.details = tuple(details)


def clean(text: str) -> str:
    """Text from outside without the characters that could drive a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def moment(text: str) -> str:
    """A time of the API (ISO 8601) as people read it, in UTC."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def plural(count: int, noun: str) -> str:
    """``1 document``, ``2 documents``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class Output:
    """Where a command writes; ``rich`` is False where nobody looks at a terminal."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.errors = Console(highlight=False, soft_wrap=True, stderr=True)

    @property
    def rich(self) -> bool:
        """True on a terminal."""
        return self.console.is_terminal

    def line(self, text: str = "", style: str = "") -> None:
        """One line, or several, without markup."""
        self.console.print(Text(clean(text), style=style))

    def pairs(self, *parts: tuple[str, str]) -> None:
        """One line from (text, style) parts."""
        self.console.print(Text.assemble(*((clean(text), style) for text, style in parts)))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "") -> None:
        """Aligned columns, the same on a terminal and in a file."""
        lines = [list(header), *([clean(cell) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        for number, line in enumerate(lines):
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            self.console.print(Text(indent + "  ".join(cells).rstrip(), style="dim" if number == 0 else ""))

    def warn(self, text: str) -> None:
        """A line on standard error that does not end the command."""
        self.errors.print(Text(clean(text), style="yellow"))

    def fail(self, error: CliError) -> None:
        """The sentence of an error, and its details one a line."""
        self.errors.print(Text.assemble(("error: ", "bold red"), clean(error.message)))
        for detail in error.details:
            self.errors.print(Text(f"  {clean(detail)}"))

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """A bar on a terminal, a line now and then elsewhere."""
        if not self.rich:
            yield _Lines(self, label)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with RichProgress(*columns, console=self.console) as bar:
            yield _Bar(bar, label)


class Progress(Protocol):
    """How far something is."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show ``done`` of ``total``."""


class _Lines:
    """A line for each tenth of the way."""

    def __init__(self, output: Output, label: str) -> None:
        self._output, self._label, self._shown = output, label, -1

    def update(self, done: int, total: int, note: str = "") -> None:
        tenth = 10 * done // total if total else -1
        if tenth > self._shown:
            self._shown = tenth
            self._output.line(f"{self._label}: {done:,} of {total:,}{note and f' ({note})'}")


class _Bar:
    def __init__(self, bar: object, label: str) -> None:
        from rich.progress import Progress as RichProgress

        assert isinstance(bar, RichProgress)  # noqa: S101 (narrows the lazily imported type)
        self._bar, self._label = bar, label
        self._task = bar.add_task(label, total=None)

    def update(self, done: int, total: int, note: str = "") -> None:
        label = f"{self._label} ({clean(note)})" if note else self._label
        self._bar.update(self._task, completed=done, total=total or None, description=label)
