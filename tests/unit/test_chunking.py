"""Passages are exact cuts of the stored text, under the headings they stand below."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragkube_api.text import chunking
from ragkube_api.text.cleaning import clean
from ragkube_api.text.headings import headings

PIECES = st.sampled_from(
    [
        "# A\n",
        "## B é\n",
        "### C\n",
        "text. ",
        "😀",
        "\n\n",
        "\n",
        "- item\n",
        "```\n# no\n```\n",
        "中文。",
        "a\u0301",
        " ",
    ]
)


@given(
    text=st.one_of(st.text(max_size=600), st.lists(PIECES, max_size=200).map("".join)),
    markdown=st.booleans(),
    limit=st.integers(min_value=20, max_value=300),
)
@example(text="é😀 hello\n\nwörld 中文。foo", markdown=False, limit=20)
def test_every_passage_is_an_exact_cut_and_nothing_is_lost(text: str, markdown: bool, limit: int) -> None:
    text = clean(text)
    content_type = "text/markdown" if markdown else "text/plain"
    chunks = chunking.split(text, content_type=content_type, max_characters=limit)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    end = 0
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.text.strip()
        assert len(chunk.text) <= limit
        assert chunk.start >= end
        assert not text[end : chunk.start].strip()
        end = chunk.end
    assert not text[end:].strip()


@pytest.mark.parametrize(
    "text", ["a" * 450_000, "word " * 60_000, "line\n" * 60_000, "# h\n\ntext é😀\n\n" * 20_000]
)
@pytest.mark.parametrize("content_type", ["text/plain", "text/markdown"])
def test_a_long_text_is_cut_exactly_and_in_reasonable_time(text: str, content_type: str) -> None:
    chunks = chunking.split(text, content_type=content_type, max_characters=1000)
    assert all(chunk.text == text[chunk.start : chunk.end] and len(chunk.text) <= 1000 for chunk in chunks)
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())


def test_a_heading_of_brackets_only_takes_no_time() -> None:
    assert [heading.level for heading in headings("# " + "[" * 100_000)] == [1]


def test_a_passage_knows_the_headings_above_it() -> None:
    text = "# Guide\n\nintro\n\n## Install\n\nsteps here\n\n### Linux\n\napt\n\n## Use\n\nrun it\n"
    chunks = chunking.split(text, content_type="text/markdown", max_characters=26)
    found = {chunk.text.splitlines()[-1]: chunk.heading for chunk in chunks}
    assert found["steps here"] == ("Guide", "Install")
    assert found["apt"] == ("Guide", "Install", "Linux")
    assert found["run it"] == ("Guide", "Use")


def test_plain_text_has_no_headings() -> None:
    (chunk,) = chunking.split("# no heading", content_type="text/plain", max_characters=200)
    assert chunk.heading == ()


def test_headings_of_all_forms_but_not_in_code() -> None:
    text = "Top\n===\n\n~~~\n# no\n~~~\n\n## `a` *b* ##\nSub\n---\n- x\n---\n#no\n"
    assert [(h.level, h.title) for h in headings(text)] == [(1, "Top"), (2, "a b"), (2, "Sub")]
    assert all(text[h.start :].startswith(("Top", "## ", "Sub")) for h in headings(text))


def test_index_text_names_title_and_headings_once() -> None:
    text = "# Guide\n\n## Install\n\nsteps"
    (chunk,) = chunking.split(text, content_type="text/markdown", max_characters=200)
    assert chunking.index_text("Guide", chunk) == f"Guide\n\n{text}"
    assert chunking.index_text("", chunk).startswith("Guide\n\n# Guide")
