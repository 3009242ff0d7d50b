"""The collections that retrieval is measured on, read from the test data (``RAGKUBE_TEST_DATA``)."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Text:
    """A document to index."""

    id: str
    title: str | None
    body: str
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Judged:
    """A question, the gain of each document that is relevant to it, and the answers if they are known."""

    question: str
    gains: Mapping[str, float]
    answers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents and questions about them."""

    name: str
    texts: Sequence[Text]
    questions: Sequence[Judged] = field(default=())


@dataclass(frozen=True, slots=True)
class Quoted:
    """A question about a proposal with the passage that answers it."""

    document: str
    quote: str
    question: str
    paraphrases: Sequence[str]
    split: str


def data_directory() -> Path:
    """Where the test data are."""
    return Path(os.environ.get("RAGKUBE_TEST_DATA") or REPOSITORY.parent / "shared" / "data")


def xquad(data: Path) -> Collection:
    """240 paragraphs, 1,190 questions; a paragraph is a document under its article's title."""
    texts: list[Text] = []
    questions: list[Judged] = []
    for article in json.loads((data / "xquad" / "xquad.en.json").read_text())["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            document = f"{article['title']}/{number}"
            texts.append(Text(document, article["title"].replace("_", " "), paragraph["context"]))
            questions += [
                Judged(qa["question"], {document: 1.0}, [answer["text"] for answer in qa["answers"]])
                for qa in paragraph["qas"]
            ]
    return Collection("XQuAD", texts, questions)


def cranfield(data: Path) -> Collection:
    """1,400 abstracts, 225 queries. Cleverdon's codes fall from 1 (complete answer) to 4: the gain is 5 - code."""
    folder = data / "cranfield"
    texts = [
        Text(number, " ".join(title.split()), body.strip())
        for number, title, body in re.findall(
            r"^\.I (\d+)\n\.T\n(.*?)^\.A\n.*?^\.W\n(.*?)(?=^\.I |\Z)",
            (folder / "cran.all.1400").read_text(),
            re.DOTALL | re.MULTILINE,
        )
        if body.strip()  # two abstracts are empty
    ]
    gains: dict[int, dict[str, float]] = {}
    for line in (folder / "cranqrel").read_text().splitlines():
        query, document, code = line.split()[:3]
        if 1 <= int(code) <= 4:
            gains.setdefault(int(query), {})[document] = 5.0 - int(code)
    queries = re.findall(
        r"^\.W\n(.*?)(?=^\.I |\Z)", (folder / "cran.qry").read_text(), re.DOTALL | re.MULTILINE
    )
    judged = [Judged(" ".join(text.split()), gains.get(n, {})) for n, text in enumerate(queries, 1)]
    return Collection("Cranfield", texts, judged)


def proposals(data: Path) -> Collection:
    """510 Kubernetes enhancement proposals in Markdown, 14 MB."""
    with gzip.open(data / "keps" / "corpus.jsonl.gz", "rt") as lines:
        records = [json.loads(line) for line in lines]
    return Collection("proposals", [Text(r["id"], None, r["text"], "text/markdown") for r in records])


def proposal_questions(split: str | None = None) -> list[Quoted]:
    """Our questions about the proposals; ``tune`` or ``report`` only, when given."""
    path = REPOSITORY / "tests" / "data" / "keps" / "questions.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    fields = ("document", "quote", "question", "paraphrases", "split")
    found = [Quoted(**{name: record[name] for name in fields}) for record in records]
    return [quoted for quoted in found if split in (None, quoted.split)]
