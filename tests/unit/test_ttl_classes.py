"""Which class a question belongs to."""

from __future__ import annotations

import pytest

from ragkube_api.services import ttl_classes
from ragkube_api.settings import TtlClass

CLASSES = ttl_classes.compiled(
    [
        TtlClass(name="live", ttl_seconds=300, words=["right now", "status", "läuft"]),
        TtlClass(name="troubleshooting", ttl_seconds=3600, words=["error", "fails", "c++", "/etc", "oom-killed"]),
        TtlClass(name="later", ttl_seconds=7200, words=["error", "why"]),
    ],
    86_400,
)  # fmt: skip


@pytest.mark.proves("C5")
@pytest.mark.parametrize(
    ("question", "name", "seconds"),
    [
        ("What is the STATUS of the queue?", "live", 300),
        ("Which pods run right now?", "live", 300),
        ("Which pods run right?", "default", 86_400),
        ("Is it right? Now what?", "default", 86_400),
        ("Is my status error gone?", "live", 300),
        ("Why this error?", "troubleshooting", 3600),
        ("Why this?", "later", 7200),
        ("What are errors?", "default", 86_400),
        ("Terrors of the deep", "default", 86_400),
        ("LÄUFT der Dienst?", "live", 300),
        ("Is C++ supported?", "troubleshooting", 3600),
        ("Is C++20 supported?", "default", 86_400),
        ("What lies in /etc/passwd?", "troubleshooting", 3600),
        ("Was it OOM-killed?", "troubleshooting", 3600),
        ("", "default", 86_400),
    ],
)
def test_the_first_class_whose_word_stands_in_the_question_decides(
    question: str, name: str, seconds: float
) -> None:
    assert ttl_classes.compiled([], 7).of(question) == ("default", 7)
    assert CLASSES.of(question) == (name, seconds)


def test_words_of_white_space_fit_nothing() -> None:
    classes = ttl_classes.compiled([TtlClass(name="empty", ttl_seconds=1, words=[" "])], 9)
    assert classes.of("any thing") == ("default", 9)
