"""Whatever is sent as a question, the answer is an answer or a problem: never a fault of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragkube_api.schemas import ProblemBody, QueryResponse
from support.api import RunningApp

text = st.text(max_size=40)
scalar = st.one_of(text, st.integers(), st.floats(), st.booleans(), st.none())
anything = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)
valid = st.fixed_dictionaries(
    {"question": st.text(min_size=3, max_size=1000)},
    optional={
        "k": st.integers(1, 20),
        "alpha": st.floats(0, 1),
        "filters": st.dictionaries(
            st.text(min_size=1, max_size=20), st.one_of(text, st.integers(-9, 9), st.booleans()), max_size=3
        ),
    },
)
mostly_wrong = st.fixed_dictionaries(
    {},
    optional={"question": anything, "k": anything, "alpha": anything, "filters": anything, "model": anything, "tags": anything, "x": anything},
)  # fmt: skip


@pytest.mark.proves("Q1")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.one_of(valid, mostly_wrong, anything))
async def test_every_body_gets_an_answer_or_a_problem(app: RunningApp, body: Any) -> None:
    # Python's encoder also writes lone surrogates, NaN and Infinity.
    response = await app.client.post("/v1/query", content=json.dumps(body).encode())

    assert response.status_code in {200, 400, 422}, response.text
    if response.status_code == 200:
        QueryResponse.model_validate_json(response.content)
        return
    problem = ProblemBody.model_validate_json(response.content)
    assert problem.status == response.status_code
    assert problem.errors or problem.code == "malformed-body"
