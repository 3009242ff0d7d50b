"""Problems of a manifest, in the words of the API server."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from ragkube_operator.crd.base import Part
from ragkube_operator.crd.spec import RagDeployment


class Problem(NamedTuple):
    """One thing that is wrong; ``str()`` words it like the API server."""

    path: str
    value: Any
    reason: str
    kind: str = "Invalid value"

    def __str__(self) -> str:
        if self.kind == "unknown field":
            return f'unknown field "{self.path}": {self.reason}'
        value = (
            None if self.value is None else json.dumps(self.value, ensure_ascii=False, separators=(",", ":"))
        )
        return ": ".join(filter(None, (self.path, self.kind, value, self.reason)))


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
    "quantity_type": "integer,string",
}
_BOUNDS = {
    "greater_than_equal": ("should be greater than or equal to", "ge"),
    "less_than_equal": ("should be less than or equal to", "le"),
    "string_pattern_mismatch": ("should match", "pattern"),
}
_SMALL = {
    "string_too_short": "should be at least {} chars long",
    "too_short": "should have at least {} items",
}


def problem(detail: ErrorDetails) -> Problem:
    """What pydantic found, in the words of the API server."""
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
    if kind in _SMALL:
        size = value if isinstance(value, str) else len(value)
        return Problem(path, size, f"{path} in body {_SMALL[kind].format(context['min_length'])}")
    if kind == "string_too_long":
        return Problem(path, None, f"may not be more than {context['max_length']} bytes", "Too long")
    if kind == "too_long":
        return Problem(path, len(value), f"must have at most {context['max_length']} items", "Too many")
    return Problem(path, value, detail["msg"])


def _json_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _suggestion(location: Sequence[int | str]) -> str:
    model: Any = RagDeployment
    for step in location[:-1]:
        if isinstance(step, str):
            model = _member(model, step)
    if model is None:
        return "no field with this name"
    wrong, fields = str(location[-1]), _fields(model)
    inside = [f"{name}.{wrong}" for name, child in fields.items() if child and wrong in _fields(child)]
    close = inside or difflib.get_close_matches(wrong, fields, n=1, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(f'"{name}"' for name in close) + "?"
    return f"the fields here are {', '.join(sorted(fields))}"


def _fields(model: type[BaseModel]) -> dict[str, type[Part] | None]:
    """Wire names of a model's fields, with the model of the object that stands there."""
    return {
        field.alias or name: next(_models(field.annotation), None)
        for name, field in model.model_fields.items()
    }


def _member(model: Any, wire: str) -> Any:
    """The model of the objects that stand at a field, also inside a list or beside None."""
    return _fields(model).get(wire) if model is not None else None


def _models(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)
