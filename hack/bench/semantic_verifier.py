"""The verifier that ``bench.semantic`` asks, and what asking a language model costs besides the model itself."""

from __future__ import annotations

import os
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2

from bench.datasets import REPOSITORY
from ragkube_api.adapters.anthropic_verifier import open_model_verifier
from ragkube_api.adapters.http_verifier import HttpVerifier
from ragkube_api.domain import ModelCall
from ragkube_api.ports import Verifier
from ragkube_api.settings import AnthropicLLM

HOW = (
    "RAGKUBE_BENCH_VERIFIER=URL of a cross-encoder, see bench.verifier; or RAGKUBE_BENCH_VERIFIER_MODEL=NAME with"
    " RAGKUBE_BENCH_VERIFIER_MODEL_URL and RAGKUBE_BENCH_VERIFIER_MODEL_KEY_FILE where they are needed"
)
_CALLS = 200
# quality is measured here, not speed: no answer is refused for being late
_PATIENCE_SECONDS = 60.0


async def named(stack: AsyncExitStack) -> tuple[str, Verifier] | None:
    """The one that the environment names, or None."""
    url, model = (os.environ.get(f"RAGKUBE_BENCH_VERIFIER{part}") for part in ("", "_MODEL"))
    if model is not None:
        key = os.environ.get("RAGKUBE_BENCH_VERIFIER_MODEL_KEY_FILE")
        settings = AnthropicLLM(
            model=model, base_url=os.environ.get("RAGKUBE_BENCH_VERIFIER_MODEL_URL"),
            api_key_file=Path(key) if key else None,
        )  # fmt: skip
        opening = open_model_verifier(settings, model, lambda _: None, timeout_seconds=_PATIENCE_SECONDS)
        return f"verifier {model}", await stack.enter_async_context(opening)
    if url is None:
        return None
    threshold = float(os.environ.get("RAGKUBE_BENCH_VERIFIER_THRESHOLD", "0.9"))
    client = await stack.enter_async_context(httpx2.AsyncClient(timeout=_PATIENCE_SECONDS))
    return f"verifier at {threshold:g}", HttpVerifier(url, threshold, client)


async def cost() -> None:
    """Against a server that answers at once: time and tokens of one question, and that a failure is a no."""
    import sys

    sys.path.insert(0, str(REPOSITORY / "tests"))
    from llm_server.server import Behaviour, running

    calls: list[ModelCall] = []
    with running() as server:
        async with open_model_verifier(
            AnthropicLLM(model="m", base_url=server.url), "m", calls.append
        ) as model:
            pair = (
                "For how long are logs kept in this cluster?",
                "How long does this cluster keep its logs?",
            )
            used, yes = time.process_time(), 0
            for _ in range(_CALLS):
                yes += await model.same(*pair)
            used = time.process_time() - used
            server.script(
                *(Behaviour("fail", status=status) for status in (401, 429, 500, 529)), Behaviour("garbage")
            )
            failed = sum([await model.same(*pair) for _ in range(5)])
    took = statistics.median(call.seconds for call in calls[:_CALLS]) * 1000
    words = len(str(server.requests[0].body["system"]).split()) + sum(len(text.split()) for text in pair)
    print(
        f"a language model as the verifier, which answers at once: {took:.1f} ms a call"
        f" ({used / _CALLS * 1000:.1f} ms of processor time, the fake server's included), {words} words sent, at most 8 tokens"
        f" back; {yes} of {_CALLS} times yes when it says SAME, {failed} of 5 times when it fails"
    )
