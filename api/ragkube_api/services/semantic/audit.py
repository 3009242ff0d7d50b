"""Whether the answer that was served is as good as the one that the question has by itself. Errs towards "wrong"."""

from __future__ import annotations

from typing import Any, Final

from ragkube_api.services import answer_codec
from ragkube_api.services.answer_codec import Entry
from ragkube_api.text.alignment import TokenModel
from ragkube_api.text.guards import foreign_letters, names, negation, numbers, units
from ragkube_api.text.wording import wording

_LEAST_LIKENESS: Final = 0.8
_DECISIVE: Final = (foreign_letters, numbers, units, negation, names)


def wrong(served: Entry, fresh: Entry, model: TokenModel) -> bool | None:
    """Compare two answers to one question.

    Equal texts are right. Quoted answers are right when they quote a sentence in common: which further ones stand beside
    it depends on the wording alone. Answers of a model are right when they cite a passage in common, agree in numbers,
    units, names and negation, and each word of one finds its like in the other. Anything else counts as wrong, so that
    the error rate is rather over- than underestimated. None when they cannot be compared: while the model is away,
    answers are quoted.
    """
    left, right = answer_codec.contents(served), answer_codec.contents(fresh)
    if left["answer"] == right["answer"]:
        return False
    if left["answerer"] != right["answerer"]:
        return None
    if left["answerer"] == "extractive":
        return not _spans(left) & _spans(right)
    return not (_passages(left) & _passages(right)) or _differ(left["answer"], right["answer"], model)


def _spans(contents: dict[str, Any]) -> set[tuple[str, str, int, int]]:
    return {(c["document"], c["version"], c["start"], c["end"]) for c in contents["citations"]}


def _passages(contents: dict[str, Any]) -> set[tuple[str, str, int]]:
    return {(c["document"], c["version"], c["chunk"]) for c in contents["citations"]}


def _differ(left: str, right: str, model: TokenModel) -> bool:
    ours, theirs = wording(left), wording(right)
    if any(differs(ours, theirs) for differs in _DECISIVE):
        return True
    a, b = model.tokens([left, right])
    likeness = min(float(model.interaction(a, [b])[0]), float(model.interaction(b, [a])[0]))
    return likeness < _LEAST_LIKENESS
