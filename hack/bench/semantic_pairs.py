"""Pairs of questions to judge: real ones (Quora) and our own over the proposals; each with a fixed split."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.datasets import REPOSITORY

OWN = REPOSITORY / "tests" / "data" / "semantic" / "questions.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """``asked`` is new, ``cached`` has an answer; ``same``: it answers both. ``change`` names what differs."""

    cached: str
    asked: str
    same: bool
    split: Literal["tune", "report"]
    change: str = ""

    @property
    def digest(self) -> str:
        """Names the pair without its text."""
        return pair_digest(self.cached, self.asked)


def pair_digest(left: str, right: str) -> str:
    """The hash that names a pair and decides on its split."""
    return hashlib.sha256(f"{left}\0{right}".encode()).hexdigest()


def quora(data: Path) -> list[Pair]:
    """20,070 real pairs; tune (two fifths) where the hash of the pair says so."""
    pairs = []
    with gzip.open(data / "quora" / "pairs.jsonl.gz", "rt") as lines:
        for record in map(json.loads, lines):
            tune = int(pair_digest(record["a"], record["b"]), 16) % 5 < 2
            pairs.append(Pair(record["a"], record["b"], record["duplicate"], "tune" if tune else "report"))
    return pairs


def own() -> list[Pair]:
    """Paraphrases and near misses of the questions on the proposals; a question's pairs are in one split."""
    pairs = []
    for record in _records(OWN):
        question, split = record["question"], record["split"]
        pairs += [Pair(question, text, True, split) for text in record["paraphrases"]]
        pairs += [
            Pair(question, near["question"], False, split, near["change"]) for near in record["near_misses"]
        ]
    return pairs


def free() -> list[Pair]:
    """The paraphrases of the retrieval benchmark: asked by somebody who does not know the proposal."""
    records = _records(REPOSITORY / "tests" / "data" / "keps" / "questions.jsonl")
    return [Pair(r["question"], text, True, r["split"]) for r in records for text in r["paraphrases"]]


def _records(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
