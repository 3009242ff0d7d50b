"""What the server says by itself: the sentence of the sent documents that fits the question best, cited."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_WORD = re.compile(r"\w+")
_ONE_WORD = re.compile(r"exactly one word: (\w+)")
_UNKNOWN = re.compile(r"reply with exactly this sentence[^:]*: (.+)")


def reply(request: Mapping[str, Any]) -> dict[str, Any]:
    """A whole message for a request."""
    documents, question = _sent(request["messages"])
    system = str(request.get("system", ""))
    # who asks for one word about two questions gets the one that lets a test go on
    word = _ONE_WORD.search(system)
    content = [{"type": "text", "text": word.group(1)}] if word else _content(documents, question, system)
    words = sum(len(_WORD.findall(text)) for text in [*documents, question])
    return {
        "id": f"msg_{abs(hash(question)):024d}"[:28], "type": "message", "role": "assistant",
        "model": request["model"], "content": content, "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {
            "input_tokens": words + 10,
            "output_tokens": sum(len(_WORD.findall(block["text"])) for block in content),
        },
    }  # fmt: skip


def events(message: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same message as a stream."""
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}}
    yield "message_start", {"message": start}
    yield "ping", {}
    for index, block in enumerate(message["content"]):
        empty = (
            {"type": "text", "text": "", "citations": []}
            if block.get("citations")
            else {"type": "text", "text": ""}
        )
        yield "content_block_start", {"index": index, "content_block": empty}
        for citation in block.get("citations") or []:
            delta = {"type": "citations_delta", "citation": citation}
            yield "content_block_delta", {"index": index, "delta": delta}
        for piece in re.findall(r"\S+\s*", block["text"]):
            yield "content_block_delta", {"index": index, "delta": {"type": "text_delta", "text": piece}}
        yield "content_block_stop", {"index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield "message_delta", {"delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    yield "message_stop", {}


def _sent(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    blocks = messages[-1]["content"]
    if isinstance(blocks, str):
        return [], blocks
    documents = [block["source"]["data"] for block in blocks if block["type"] == "document"]
    asked = [block["text"] for block in blocks if block["type"] == "text"]
    return documents, asked[-1].rpartition("Question:")[2] if asked else ""


def _content(documents: Sequence[str], question: str, system: str) -> list[dict[str, Any]]:
    wanted = {word.lower() for word in _WORD.findall(question) if len(word) > 3}
    best = max(_scored(documents, wanted), default=None)
    if best is None or best[0] == 0:
        unknown = _UNKNOWN.search(system)
        return [{"type": "text", "text": unknown.group(1) if unknown else "I don't know."}]
    _, number, start, end = best
    number, start = -number, -start
    cited = {
        "type": "char_location", "cited_text": documents[number][start:end], "document_index": number,
        "document_title": None, "start_char_index": start, "end_char_index": end, "file_id": None,
    }  # fmt: skip
    return [
        {"type": "text", "text": "According to the documents: "},
        {"type": "text", "text": documents[number][start:end].strip(), "citations": [cited]},
    ]


def _scored(documents: Sequence[str], wanted: set[str]) -> Iterator[tuple[int, int, int, int]]:
    for number, text in enumerate(documents):
        for match in _SENTENCE.finditer(text):
            words = {word.lower() for word in _WORD.findall(match.group())}
            yield len(words & wanted), -number, -match.start(), match.end()
