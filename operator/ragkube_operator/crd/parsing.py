"""From a manifest to a ``RagDeployment``, or to the sentences with which the API server would refuse it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from pydantic import ValidationError

from ragkube_operator.crd.base import Part
from ragkube_operator.crd.rules import KINDS, Rule, UpdateRule
from ragkube_operator.crd.spec import NAME_RULE, RagDeployment
from ragkube_operator.crd.words import Problem, problem


class SpecError(ValueError):
    """The manifest is wrong; ``problems`` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def parse(manifest: Mapping[str, Any], *, old: Mapping[str, Any] | None = None) -> RagDeployment:
    """Check a manifest and fill in every default.

    Args:
        manifest: the object as written by the user or read from the API server.
        old: what the object was before, for the rules about changes.

    Raises:
        SpecError: with every problem, in the words of the API server.
    """
    cleaned = _without_nulls(manifest)
    try:
        deployment = RagDeployment.model_validate(cleaned)
    except ValidationError as error:
        raise SpecError([problem(detail) for detail in error.errors()]) from error
    before = RagDeployment.model_validate(_without_nulls(old)) if old is not None else None
    problems = [*_misnamed(deployment), *_duplicates(deployment, ""), *_violations(deployment, before, "")]
    if problems:
        raise SpecError(problems)
    return deployment


def _without_nulls(value: Any) -> Any:
    """Null means absent: the API server drops nulls before it fills in defaults."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    # YAML makes a date of a text like 2026-01-31; for kubectl it stays one.
    return value.isoformat() if isinstance(value, date) else value


def _children(model: Part) -> Iterator[tuple[str, Any, Any]]:
    for name, field in type(model).model_fields.items():
        yield field.alias or name, getattr(model, name), field


def _misnamed(deployment: RagDeployment) -> Iterator[Problem]:
    if not NAME_RULE.holds(deployment.name):
        yield Problem("metadata.name", deployment.name, NAME_RULE.message)


def _duplicates(model: Part, path: str) -> Iterator[Problem]:
    """Items of a list with the same key, or the same item twice in a set."""
    for wire, value, field in _children(model):
        here = f"{path}.{wire}" if path else wire
        if isinstance(value, Part):
            yield from _duplicates(value, here)
        elif isinstance(value, list):
            yield from _repeated(value, here, _list_keys(field))


def _list_keys(field: Any) -> list[str] | None:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if extra.get("x-kubernetes-list-type") == "set":
        return []
    keys = extra.get("x-kubernetes-list-map-keys")
    return keys if isinstance(keys, list) else None


def _repeated(items: list[Any], path: str, keys: list[str] | None) -> Iterator[Problem]:
    seen: list[Any] = []
    for position, item in enumerate(items):
        here = f"{path}[{position}]"
        if isinstance(item, Part):
            yield from _duplicates(item, here)
        if keys is None:
            continue
        identity = {key: getattr(item, key) for key in keys} if keys else item
        if identity in seen:
            yield Problem(here, identity, "", "Duplicate value")
        seen.append(identity)


def _violations(model: Part, old: Any, path: str) -> Iterator[Problem]:
    """Rules that do not hold, in this object and in those inside it."""
    for rule in type(model).rules:
        if not _holds(rule, model, old):
            yield _violation(rule, path)
    for wire, value, _ in _children(model):
        before = next((v for w, v, _ in _children(old) if w == wire), None) if old is not None else None
        here = f"{path}.{wire}" if path else wire
        if isinstance(value, Part):
            yield from _violations(value, before if isinstance(before, type(value)) else None, here)
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, Part):
                    yield from _violations(item, _same(item, before), f"{here}[{position}]")


def _same(item: Part, before: Any) -> Any:
    name = getattr(item, "name", None)
    candidates = before if isinstance(before, list) else []
    return next((other for other in candidates if name and getattr(other, "name", None) == name), None)


def _holds(rule: Rule, model: Part, old: Any) -> bool:
    if isinstance(rule, UpdateRule):
        return old is None or rule.holds(model, old)
    return rule.holds(model)


def _violation(rule: Rule, path: str) -> Problem:
    where = ".".join(filter(None, (path, rule.field)))
    return Problem(where, None, rule.message, KINDS[rule.reason])
