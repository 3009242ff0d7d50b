"""An application over the embedded parts, with an empty index."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
import structlog

from ragkube_api import http_lane
from support.api import RunningApp, running_app, settings_in
from support.lanes import Lanes, opened


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    """What is logged is tested on the real process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[RunningApp]:
    async with running_app(settings_in(tmp_path)) as running:
        yield running


@pytest.fixture
async def lanes(tmp_path: Path) -> AsyncIterator[Lanes]:
    async with AsyncExitStack() as stack:
        yield await opened(tmp_path, stack)


@pytest.fixture
def patience() -> Iterator[None]:
    """No machine is so busy that a piece of a body seems late."""
    with patch.object(http_lane, "PATIENCE_SECONDS", 60):
        yield
