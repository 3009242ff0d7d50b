"""``ragkube cache``: what is cached, and how to get rid of it or fill it up."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragkube_operator.cli_documents import report_failures
from ragkube_operator.cli_output import USAGE, CliError, Output, moment, plural
from ragkube_operator.client import JSON, Client

BATCH = 500
"""Questions in one request for warming up."""
_QUESTION = 70


def stats(client: Client, output: Output, *, as_json: bool) -> None:
    """Levels and kinds, and the counters of the deployment and of the replica that answered."""
    found = client.cache()
    if as_json:
        output.console.out(json.dumps(found, indent=2, ensure_ascii=False), highlight=False)
        return
    state = "on" if found["enabled"] else "off (spec.cache.enabled)"
    output.line(f"the cache is {state}; tenant {found['tenant']}")
    output.line()
    header = ("LEVEL", "KIND", "ENTRIES", "BYTES", "EVICTIONS")
    output.table(header, [_level(row) for row in found["levels"]])
    output.line()
    _counts(output, found.get("deployment"), found["replica"])


def _counts(output: Output, deployment: JSON | None, replica: JSON) -> None:
    columns = {"THIS REPLICA": replica}
    if deployment is not None:  # an API of an earlier version has counted only for itself
        columns = {"DEPLOYMENT": deployment, **columns}
        output.line(f"{_summed(deployment)}: {_ratio(deployment)}")
    output.line(f"replica {replica['name']} since it began, all tenants: {_ratio(replica)}")
    output.table(("COUNTER", "OF", *columns), _counters(list(columns.values())))


def _summed(deployment: JSON) -> str:
    replicas = plural(deployment["replicas"], "replica")
    known = f"as of {deployment['age_s']:.0f} s ago" if deployment["age_s"] >= 1 else "as of now"
    return f"deployment ({replicas}) since {moment(deployment['since'])} UTC, all tenants, {known}"


def _level(row: JSON) -> tuple[str, ...]:
    counts = ("-" if row[key] is None else f"{row[key]:,}" for key in ("entries", "bytes", "evictions"))
    return (str(row["level"]), str(row["kind"]), *counts)


def _ratio(counted: JSON) -> str:
    hits, misses = (sum(int(row["count"]) for row in counted[key]) for key in ("hits", "misses"))
    if not hits + misses:
        return "nothing asked yet"
    return f"{100 * hits / (hits + misses):.1f} % of {hits + misses:,} look-ups were hits"


def _counters(columns: Sequence[JSON]) -> Iterator[tuple[str, ...]]:
    for name in ("hits", "misses", "errors"):
        counts = [
            {", ".join(map(str, row["labels"].values())): int(row["count"]) for row in each[name]}
            for each in columns
        ]
        for labels in sorted(set().union(*counts)):
            yield name, labels, *(f"{column.get(labels, 0):,}" for column in counts)


def list_answers(client: Client, output: Output, *, limit: int, as_json: bool) -> None:
    """Cached answers, oldest first."""
    found = client.cached_answers(limit)
    if as_json:
        for answer in found:
            output.console.out(json.dumps(answer, ensure_ascii=False), highlight=False)
        return
    rows = [_answer(answer) for answer in found]
    if not rows:
        output.line("No answers are cached. Fill the cache with `ragkube cache warm`.")
        return
    output.table(("ID", "CLASS", "DOCUMENTS", "STORED (UTC)", "QUESTION"), rows)


def _answer(answer: JSON) -> tuple[str, ...]:
    documents = str(len(answer["documents"]))
    return answer["id"], answer["ttl_class"], documents, moment(answer["stored"]), _short(answer["question"])


def _short(text: str) -> str:
    return text if len(text) <= _QUESTION else text[: _QUESTION - 1] + "…"


def show(client: Client, output: Output, answer_id: str) -> None:
    """One of them, as JSON."""
    found = client.cached_answer(answer_id)
    output.console.out(json.dumps(found, indent=2, ensure_ascii=False), highlight=False)


def disown(client: Client, output: Output, answer_ids: Sequence[str]) -> None:
    """Each one; the first that is not there ends the command."""
    for answer_id in answer_ids:
        client.disown(answer_id)
        output.line(f"disowned {answer_id}")


def clear(client: Client, output: Output, conditions: Mapping[str, str | None], *, everything: bool) -> None:
    """Drop what the conditions name.

    Raises:
        CliError: neither a condition nor ``--all`` is given, or both.
    """
    given = {key: value for key, value in conditions.items() if value is not None}
    if bool(given) == everything:
        names = ", ".join(f"--{key}" for key in conditions)
        raise CliError(f"say what to clear: {names}, or --all", exit_code=USAGE)
    output.line(f"{plural(client.clear_cache(given), 'value')} removed")


def asked(client: Client, output: Output, *, limit: int, as_json: bool) -> None:
    """Most asked first."""
    found = client.most_asked(limit)
    if as_json:
        output.console.out(json.dumps(found, indent=2, ensure_ascii=False), highlight=False)
        return
    rows = [
        (f"{row['count']:,}", _short(row["request"]["question"]), _options(row["request"])) for row in found
    ]
    if rows:
        output.table(("COUNT", "QUESTION", "WITH"), rows)
    else:
        output.line("Nothing was asked yet.")


def _options(request: JSON) -> str:
    shown = {key: value for key, value in request.items() if key != "question"}
    return json.dumps(shown, ensure_ascii=False) if shown else ""


def warm_bodies(file: Path | None, most_asked: int | None, concurrency: int) -> list[JSON]:
    """Bodies of ``POST /v1/cache/warm``, each with a bounded number of questions.

    Raises:
        CliError: there is nothing to ask, or a line is no question.
    """
    if (file is None) == (most_asked is None):
        raise CliError("name a FILE with questions, or give --most-asked N", exit_code=USAGE)
    if file is None:
        return [{"most_asked": most_asked, "concurrency": concurrency}]
    questions = [_question(file, number, line) for number, line in _lines(file)]
    if not questions:
        raise CliError(f"there is no question in {file}", exit_code=USAGE)
    batches = (questions[start : start + BATCH] for start in range(0, len(questions), BATCH))
    return [{"questions": batch, "concurrency": concurrency} for batch in batches]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}", exit_code=USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError(f"{file} is no text file", exit_code=USAGE) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.strip()


def _question(file: Path, number: int, line: str) -> Any:
    if not line.startswith("{"):
        return line
    try:
        return json.loads(line)
    except ValueError as error:
        raise CliError(f"{file}, line {number}: no JSON object", exit_code=USAGE) from error


def warm(client: Client, output: Output, bodies: Sequence[JSON]) -> bool:
    """Ask them all; True when every one is answered."""
    outcomes: Counter[str] = Counter()
    failures: dict[str, str] = {}
    before, known = 0, sum(len(body.get("questions", ())) for body in bodies)
    with output.progress("Warming") as progress:
        for body in bodies:
            done = 0
            for result in client.warm(body):
                done = int(result["done"])
                outcomes[result["outcome"]] += 1
                if result["outcome"] in {"failed", "uncacheable"}:
                    failures[_short(result["question"])] = f"{result['code']}: {result['detail']}"
                bad = outcomes["failed"] + outcomes["uncacheable"]
                note = f"{bad} not cached" if bad else ""
                progress.update(before + done, max(known, int(result["total"])), note)
            before += done
    fresh, cached = outcomes["warmed"], outcomes["cached"]
    bad = sum(outcomes.values()) - fresh - cached
    output.line(f"{plural(fresh, 'answer')} cached, {cached:,} cached before, {bad:,} not cached")
    report_failures(output, failures)
    return not failures
