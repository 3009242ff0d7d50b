"""An application over the embedded parts, with an empty index."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from support.api import RunningApp, running_app, settings_in


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    """What is logged is tested on the real process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[RunningApp]:
    async with running_app(settings_in(tmp_path)) as running:
        yield running
