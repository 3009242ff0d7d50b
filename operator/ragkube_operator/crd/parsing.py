"""From a manifest to a ``RagDeployment``, or to the sentences with which the API server would refuse it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ragkube_operator.crd.base import Part
from ragkube_operator.crd.rules import KINDS, Rule, UpdateRule
from ragkube_operator.crd.spec import RagDeployment


class Problem(NamedTuple):
    """One thing that is wrong; ``str()`` words it like the API server."""

    path: str
    value: Any
    reason: str
    kind: str = "Invalid value"

    def __str__(self) -> str:
        if self.kind == "Required value":
            return f"{self.path}: Required value" + (f": {self.reason}" if self.reason else "")
        if self.kind in {"Forbidden", "unknown field"}:
            return f"{self.path}: {self.kind}: {self.reason}"
        if self.kind == "Duplicate value":
            return f"{self.path}: Duplicate value: {_shown(self.value)}"
        return f"{self.path}: {self.kind}: {_shown(self.value)}: {self.reason}"


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
        raise SpecError([_problem(detail) for detail in error.errors()]) from error
    before = RagDeployment.model_validate(_without_nulls(old)) if old is not None else None
    problems = [*_duplicates(deployment, ""), *_violations(deployment, before, "")]
    if problems:
        raise SpecError(problems)
    return deployment


def _without_nulls(value: Any) -> Any:
    """Null means absent: the API server drops nulls before it fills in defaults."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return '"object"'
    return json.dumps(value, ensure_ascii=False)


def _path(location: Sequence[int | str]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
    return path


_TYPES = {
    "int_type": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "string_type": "string",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}
_BOUNDS = {
    "greater_than_equal": ("should be greater than or equal to", "ge"),
    "less_than_equal": ("should be less than or equal to", "le"),
    "string_pattern_mismatch": ("should match", "pattern"),
}
_SIZES = {
    "string_too_long": ("may not be more than {} bytes long", "max_length"),
    "string_too_short": ("should be at least {} chars long", "min_length"),
    "too_long": ("must have at most {} items", "max_length"),
    "too_short": ("should have at least {} items", "min_length"),
}


def _problem(detail: ErrorDetails) -> Problem:
    path, kind, value = _path(detail["loc"]), detail["type"], detail["input"]
    context = detail.get("ctx", {})
    if kind == "missing":
        return Problem(path, None, "", "Required value")
    if kind == "extra_forbidden":
        return Problem(path, value, _suggestion(detail["loc"]), "unknown field")
    if kind == "literal_error":
        supported = [item.strip("'") for item in context["expected"].replace(" or ", ", ").split(", ")]
        shown = ", ".join(f'"{item}"' for item in supported)
        return Problem(path, value, f"supported values: {shown}", "Unsupported value")
    if kind in _TYPES:
        name = _json_type(value)
        return Problem(path, name, f'{path} in body must be of type {_TYPES[kind]}: "{name}"')
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        shown = f"'{context[key]}'" if key == "pattern" else f"{context[key]:g}"
        return Problem(path, value, f"{path} in body {words} {shown}")
    if kind in _SIZES:
        words, key = _SIZES[kind]
        return Problem(path, value, f"{path} in body {words.format(context[key])}")
    return Problem(path, value, detail["msg"])


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _suggestion(location: Sequence[int | str]) -> str:
    model: Any = RagDeployment
    for step in location[:-1]:
        if isinstance(step, str):
            model = _member(model, step)
    names = [field.alias or name for name, field in model.model_fields.items()] if model else []
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else f"the fields here are {', '.join(sorted(names))}"


def _member(model: Any, wire: str) -> Any:
    """The model of the objects that stand at a field, also inside a list or beside None."""
    for name, field in model.model_fields.items():
        if wire in {field.alias, name}:
            return next(_models(field.annotation), None)
    return None


def _models(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def _children(model: Part) -> Iterator[tuple[str, Any, Any]]:
    for name, field in type(model).model_fields.items():
        yield field.alias or name, getattr(model, name), field


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
            yield Problem(here, _Key(identity) if keys else identity, "", "Duplicate value")
        seen.append(identity)


class _Key(dict[str, Any]):
    """The key of a list item: shown with its content, where other objects are shown by their type."""


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
    return Problem(where, {}, rule.message, KINDS[rule.reason])
