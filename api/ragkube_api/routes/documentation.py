"""What the OpenAPI document says about errors."""

from __future__ import annotations

from typing import Any, Final

from ragkube_api.schemas import ProblemBody

_PROBLEM: Final[dict[str, Any]] = {
    "model": ProblemBody,
    "description": "A problem (RFC 9457).",
    "content": {"application/problem+json": {}},
}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}
