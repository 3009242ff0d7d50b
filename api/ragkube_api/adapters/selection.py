"""Which entries a ``Selector`` names: pure."""

from __future__ import annotations

from ragkube_api.domain import About, Key, Selector


def matches(selector: Selector, key: Key, about: About | None) -> bool:
    """Whether every condition that is given holds; an entry without a description fails all but ``kind``."""
    if selector.kind is not None and key.kind != selector.kind:
        return False
    if selector.tag is None and selector.document is None and selector.question is None:
        return True
    if about is None:
        return False
    return (
        (selector.tag is None or selector.tag in about.tags)
        and (selector.document is None or selector.document in about.documents)
        and (selector.question is None or like(selector.question, about.question))
    )


def like(pattern: str, text: str) -> bool:
    """A shell pattern on the whole text, case does not matter; ``*`` and ``?`` only: a bracket is a bracket.

    At most ``len(pattern) * len(text)`` steps: a regular expression of many stars would take years.
    """
    pattern, text = pattern.casefold(), text.casefold()
    here = place = 0
    star, resumed = -1, 0
    while place < len(text):
        if here < len(pattern) and pattern[here] == "*":
            star, resumed = here, place
            here += 1
        elif here < len(pattern) and pattern[here] in {"?", text[place]}:
            here += 1
            place += 1
        elif star >= 0:
            resumed += 1
            here, place = star + 1, resumed
        else:
            return False
    return pattern[here:].strip("*") == ""
