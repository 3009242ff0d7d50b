"""All tests at once: nothing is left out, what fails is told."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

import suite

FAKE = """
import sys
beside = "not level" in sys.argv
print("second" if beside else "first", flush=True)
sys.exit({second} if beside else {first})
"""


def played(monkeypatch: pytest.MonkeyPatch, options: Sequence[str], first: int = 0, second: int = 0) -> int:
    """The exit status with sessions that do nothing but end."""
    monkeypatch.setattr(suite, "PYTEST", (sys.executable, "-c", FAKE.format(first=first, second=second)))
    monkeypatch.setattr(suite, "build_programs", lambda: None)
    return suite.main(options)


@pytest.mark.parametrize(
    ("first", "second", "status"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (2, 1, 2), (0, 5, 5), (5, 0, 5)]
)
def test_a_session_that_fails_fails_the_whole(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], first: int, second: int, status: int
) -> None:
    assert played(monkeypatch, ["--durations=9"], first, second) == status
    assert capfd.readouterr().out.split() == ["first", "beside", "the", "cluster:", "second"]


@pytest.mark.parametrize(
    "options", [["tests/unit"], ["-k", "chart"], ["-x", "-k=chart"], ["-m", "soak"], ["a.py::test"]]
)
def test_who_chooses_tests_gets_one_session(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert played(monkeypatch, options, first=3) == 3
    assert capfd.readouterr().out == "first\n"
