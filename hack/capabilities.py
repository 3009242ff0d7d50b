"""docs/capabilities.md: every capability, the tests that prove it and what is still missing.

The columns ``id``, ``capability`` and ``missing`` of the table are written by hand; ``state`` and ``proven by``
come from the ``proves`` marks of the tests. Prints the table; ``--write`` updates the file, ``--check`` compares.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "capabilities.md"
SOAK = " (make soak)"


@dataclass(frozen=True, slots=True)
class Row:
    """One capability as the page states it."""

    id: str
    capability: str
    missing: str


def marks(node: ast.AST) -> Iterator[str]:
    """Ids inside ``pytest.mark.proves("A1", …)`` anywhere in an expression."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("mark.proves"):
            yield from (str(a.value) for a in call.args if isinstance(a, ast.Constant))


def module_marks(tree: ast.Module) -> set[str]:
    """Ids that ``pytestmark = …`` gives to every test of a module."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            found.update(marks(node.value))
    return found


def is_soak(test: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether ``make test`` leaves it out; a long parameter beside short ones does not count."""
    return any(ast.unparse(decorator) == "pytest.mark.soak" for decorator in test.decorator_list)


def proofs_in(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of (capability id, test) of one file; soak runs end with ``SOAK``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    shared = module_marks(tree)
    name = path.relative_to(ROOT / "tests").as_posix()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            own = {mark for decorator in node.decorator_list for mark in marks(decorator)}
            test = f"{name}::{node.name}{SOAK if is_soak(node) else ''}"
            yield from ((mark, test) for mark in own | shared)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("Test"):
            yield from ((mark, f"{name}::{ast.unparse(node.targets[0])}") for mark in marks(node.value))


def proofs() -> dict[str, list[str]]:
    """Tests by capability id."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for mark, test in proofs_in(path):
            found[mark].add(test)
    return {mark: sorted(tests) for mark, tests in found.items()}


def parse(text: str) -> list[Row]:
    """The rows of the table, in order."""
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and cells[0] not in {"id", "---"}:
            rows.append(Row(cells[0], cells[1], cells[4]))
    return rows


def state(row: Row, tests: list[str]) -> str:
    """``done`` needs proof and nothing missing."""
    if not tests:
        return "planned"
    return "partial" if row.missing else "done"


def summary(tests: list[str]) -> str:
    """Test files with the number of tests in each; those of ``make soak`` apart."""
    by_file: dict[str, list[bool]] = defaultdict(list)
    for test in tests:
        by_file[test.split("::")[0]].append(test.endswith(SOAK))
    return ", ".join(f"{name} ({counted(soak)})" for name, soak in sorted(by_file.items()))


def counted(soak: list[bool]) -> str:
    """``2``, ``1 soak`` or ``2 + 1 soak``."""
    short, long = soak.count(False), soak.count(True)
    return " + ".join([*([str(short)] if short else []), *([f"{long} soak"] if long else [])])


def render(text: str, found: dict[str, list[str]]) -> str:
    """The page with its generated columns renewed."""
    rows = {row.id: row for row in parse(text)}
    lines = []
    for line in text.splitlines():
        row = rows.get(line.strip("| ").split(" ")[0]) if line.startswith("| ") else None
        if row is None:
            lines.append(line)
            continue
        tests = found.get(row.id, [])
        cells = (row.id, row.capability, state(row, tests), summary(tests), row.missing)
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def show(text: str, found: dict[str, list[str]]) -> None:
    """Print every row with its tests."""
    for row in parse(text):
        tests = found.get(row.id, [])
        print(f"{row.id:4} {state(row, tests):8} {row.capability}")
        for test in tests:
            print(f"       + {test}")
        if row.missing:
            print(f"       - missing: {row.missing}")


def main() -> int:
    """Entry point."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    text, found = PAGE.read_text(encoding="utf-8"), proofs()
    unknown = sorted(set(found) - {row.id for row in parse(text)})
    if unknown:
        print(f"tests prove ids that {PAGE.name} does not list: {', '.join(unknown)}", file=sys.stderr)
        return 1
    renewed = render(text, found)
    if options.write:
        PAGE.write_text(renewed, encoding="utf-8")
    elif options.check and renewed != text:
        print("docs/capabilities.md is out of date: run `make fix`", file=sys.stderr)
        return 1
    elif not options.check:
        show(renewed, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
