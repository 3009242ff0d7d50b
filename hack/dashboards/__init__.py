"""The Grafana dashboards, written with Grafana's own builders; `make generate` writes them into the operator."""

from __future__ import annotations

import json
from collections.abc import Callable

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards import cache, cost, ingestion, operator, platform
from dashboards.panels import Board

BOARDS: dict[str, Callable[[], Board]] = {
    "platform": platform.board,
    "cache": cache.board,
    "cost": cost.board,
    "ingestion": ingestion.board,
    "operator": operator.board,
}


def files() -> dict[str, str]:
    """Name and JSON of each dashboard."""
    return {name: text(board()) for name, board in BOARDS.items()}


def text(board: Board) -> str:
    """One line: a file is read by Grafana, not by people."""
    return json.dumps(board.build(), cls=JSONEncoder, sort_keys=True, separators=(",", ":")) + "\n"
