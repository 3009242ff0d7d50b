"""The tests' own Messages API: the real SDK reads its answers and streams as those of the real one."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest
from anthropic.types import MessageParam

from llm_server.server import Behaviour, LLMServer, running

TEXT = "Pods restart when they fail. Whales swim far."
ASKED: list[MessageParam] = [
    {
        "role": "user",
        "content": [
            {
                "type": "document", "title": "Sea", "citations": {"enabled": True},
                "source": {"type": "text", "media_type": "text/plain", "data": TEXT},
            },
            {"type": "text", "text": "Question: how far do whales swim?"},
        ],
    }
]  # fmt: skip


@pytest.fixture(scope="module")
def llm() -> Iterator[LLMServer]:
    with running() as server:
        yield server


@pytest.fixture
async def client(llm: LLMServer) -> anthropic.AsyncAnthropic:
    llm.script()
    return anthropic.AsyncAnthropic(api_key="none", base_url=llm.url, max_retries=0)


async def test_a_stream_ends_in_the_same_message(client: anthropic.AsyncAnthropic) -> None:
    whole = await client.messages.create(model="m", max_tokens=100, messages=ASKED)
    async with client.messages.stream(model="m", max_tokens=100, messages=ASKED) as stream:
        pieces = [piece async for piece in stream.text_stream]
        streamed = await stream.get_final_message()
    text = "".join(block.text for block in whole.content if block.type == "text")
    assert "".join(pieces) == text == "According to the documents: Whales swim far."
    assert len(pieces) > 3
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 0
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    for message in (whole, streamed):
        last = message.content[-1]
        assert last.type == "text"
        (citation,) = last.citations or []
        assert citation.type == "char_location"
        assert TEXT[citation.start_char_index : citation.end_char_index] == citation.cited_text


async def test_a_script_is_followed_once(llm: LLMServer, client: anthropic.AsyncAnthropic) -> None:
    llm.script(Behaviour("fail", status=529), Behaviour("cut"))
    with pytest.raises(anthropic.APIStatusError):
        await client.messages.create(model="m", max_tokens=100, messages=ASKED)
    with pytest.raises(anthropic.APIConnectionError):
        await client.messages.create(model="m", max_tokens=100, messages=ASKED)
    assert (await client.messages.create(model="m", max_tokens=100, messages=ASKED)).content
    assert len(llm.requests) == 3
