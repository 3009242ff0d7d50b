"""``ragkube ask``: a question, the answer, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ragkube_operator.cli_output import USAGE, CliError, Output
from ragkube_operator.client import JSON, Client

_QUOTE = 300


def request(
    question: str,
    *,
    k: int | None = None,
    alpha: float | None = None,
    filters: Sequence[str] = (),
    model: str | None = None,
) -> JSON:
    """The body of ``POST /v1/query``; what is not given is left to the server's defaults."""
    given = {"k": k, "alpha": alpha, "model": model, "filters": parse_pairs("--filter", filters) or None}
    return {"question": question} | {name: value for name, value in given.items() if value is not None}


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """``key=text`` or ``key:=json``; a key given twice matches any of its values.

    Raises:
        CliError: one has neither form.
    """
    values: dict[str, list[Any]] = {}
    for item in pairs:
        key, sign, value = item.partition("=")
        typed = key.endswith(":")
        name = key.removesuffix(":").strip()
        if not sign or not name:
            raise CliError(f"{option} {item!r} is not key=value", exit_code=USAGE)
        values.setdefault(name, []).append(_json_value(option, item, value) if typed else value)
    return {key: found[0] if len(found) == 1 else found for key, found in values.items()}


def _json_value(option: str, item: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CliError(f"{option} {item!r}: what follows := is no JSON value", exit_code=USAGE) from error


def ask(client: Client, output: Output, body: JSON, *, as_json: bool) -> None:
    """Print the answer to one question."""
    answer = client.query(body)
    if as_json:
        output.console.out(json.dumps(answer, indent=2, ensure_ascii=False), highlight=False)
    else:
        show(output, answer)


def show(output: Output, answer: JSON) -> None:
    """The answer, its citations with their quotes, and a line about how it came about."""
    output.line(answer["answer"], style="bold" if output.rich else "")
    for number, citation in enumerate(answer["citations"], start=1):
        output.line()
        where = f"characters {citation['start']}-{citation['end']}, score {citation['score']:.2f}"
        output.pairs((f"[{number}] ", "cyan"), (citation["document"], "cyan"), (f"  {where}", "dim"))
        output.line(f'    "{_shortened(citation["quote"])}"')
    output.line()
    output.line(summary(answer), style="dim")


def summary(answer: JSON) -> str:
    """Who answered, from where, how fast and for how much."""
    parts = [answer.get("model") or f"{answer['answerer']} answer", _cache(answer["cache"])]
    parts.append(f"{answer['latency_ms']:.1f} ms")
    usage = answer.get("usage") or {}
    if answer.get("model"):
        tokens = f"{usage.get('input_tokens', 0)} + {usage.get('output_tokens', 0)} tokens"
        parts.append(f"{tokens}, ${answer.get('cost_usd') or 0:.4f}")
    if answer.get("degraded"):
        parts.append("degraded: " + "; ".join(map(str, answer["degraded"])))
    return " · ".join([*parts, f"trace {answer['trace_id']}"])


def _cache(cache: JSON) -> str:
    if cache["status"] != "hit":
        return f"cache {cache['status']}"
    return f"cache hit ({cache.get('level')}, {cache.get('age_s') or 0:.0f} s old)"


def _shortened(quote: str) -> str:
    text = " ".join(quote.split())
    return text if len(text) <= _QUOTE else text[: _QUOTE - 1].rstrip() + "…"
