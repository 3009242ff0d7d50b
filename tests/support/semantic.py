"""Documents, questions and their paraphrases for the tests of the semantic cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from support.api import RunningApp

SUBJECTS: Final = (
    "archive", "billing", "catalogue", "dispatch", "exports", "forecast", "gateway", "history", "inventory",
    "journal", "keyring", "ledger", "mailbox", "notices", "orders", "payments", "quotas", "reports", "sessions",
    "tracing", "uploads", "vouchers", "webhooks", "tickets",
)  # fmt: skip


def document(subject: str, number: int) -> str:
    """What is known of a subject."""
    return (
        f"The {subject} service keeps its records for {number + 3} days before they are removed. "
        f"An operator of the {subject} service reads them with the viewer tool of that team."
    )


def question(subject: str) -> str:
    """One that the document answers."""
    return f"How long does the {subject} service keep its records before they are removed?"


def paraphrase(subject: str) -> str:
    """The same question in other words."""
    return f"How long are records kept by the {subject} service before they get removed?"


async def put_all(app: RunningApp, subjects: tuple[str, ...] = SUBJECTS) -> None:
    """A document for each subject."""
    for number, subject in enumerate(subjects):
        await app.put(subject, document(subject, number))


ENOUGH: Final = SUBJECTS[:-2]
"""To bring the bound on the error rate within a budget of 20 %."""


async def learn(app: RunningApp, subjects: tuple[str, ...] = ENOUGH) -> None:
    """Ask; with enough subjects paraphrases are served from then on."""
    for subject in subjects:
        await app.ask(question(subject))
        await app.ask(paraphrase(subject))
    await app.ask("Which tool shows the records of another team?")
    if subjects == ENOUGH:

        async def serving() -> bool:
            return await app.metric("rag_semantic_serving", tenant="default") == 1

        await eventually(serving, "paraphrases are served")


async def eventually(check: Callable[[], Awaitable[bool]], what: str, seconds: float = 30) -> None:
    """Wait until it holds."""
    ends = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < ends, what
        await asyncio.sleep(0.02)
