"""Rules for every test: on CI nothing may be skipped, soak runs only when asked for."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

pytest_plugins = ["support.redis", "support.weaviate"]

CI = os.environ.get("CI") == "true"
SOAK = os.environ.get("RAGKUBE_SOAK") == "1"
REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs are deselected, not skipped: ``make soak`` selects them."""
    if SOAK:
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=soak)
    items[:] = [item for item in items if item not in soak]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI a machine that lacks a component is a failure: a green run must mean that everything ran."""
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real corpora and question sets (``RAGKUBE_TEST_DATA``); skips where they are absent."""
    path = Path(os.environ.get("RAGKUBE_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip(f"no test data at {path}: set RAGKUBE_TEST_DATA")
    return path
