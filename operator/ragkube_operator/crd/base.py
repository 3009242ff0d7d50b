"""The base of every model of the spec, and the value types they share."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from ragkube_operator.crd.rules import Rule

DURATION_PATTERN = r"^[1-9][0-9]{0,5}(s|m|h|d)$"
QUANTITY_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
URL_PATTERN = r"^https?://[^\s/]+[^\s]*$"
HOST_PATTERN = r"^[A-Za-z0-9\[]([A-Za-z0-9.:-]*[A-Za-z0-9\]])?$"
ENDPOINT_PATTERN = r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?):[0-9]{1,5}$"
IMAGE_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
}


class Part(BaseModel):
    """One object of the spec: camelCase on the wire, unknown fields refused, no silent conversions."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()


def part(model: type[Part]) -> Any:
    """A field whose object is always there, filled with its own defaults."""
    return Field(
        default_factory=model, json_schema_extra=lambda schema: schema.update(default=default(model))
    )


def default(model: type[Part]) -> dict[str, Any]:
    """Empty, and filled field by field; but the API server tries a model's rules on the default as it stands."""
    return _without_empty(model().model_dump(by_alias=True, exclude_none=True)) if model.rules else {}


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item not in ({}, [])}
    return value


def _quantity_text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("quantity_type", "not a quantity")
    return str(value)


Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN)]
Quantity = Annotated[
    str,
    StringConstraints(pattern=QUANTITY_PATTERN),
    BeforeValidator(_quantity_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "x-kubernetes-int-or-string": True,
            "maxLength": 24,
        }
    ),
]
ObjectName = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=253)]
Url = Annotated[str, StringConstraints(pattern=URL_PATTERN, max_length=2048)]
Host = Annotated[str, StringConstraints(pattern=HOST_PATTERN, max_length=253)]
Endpoint = Annotated[str, StringConstraints(pattern=ENDPOINT_PATTERN, max_length=262)]
Image = Annotated[str, StringConstraints(pattern=IMAGE_PATTERN, max_length=512)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Port = Annotated[int, Field(ge=1, le=65535)]


def seconds(duration: str) -> int:
    """The seconds of a duration like ``30m`` or ``24h``."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def amount(quantity: str) -> Decimal:
    """The number that a Kubernetes quantity like ``500m`` or ``1Gi`` stands for."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity)
    if match is None:
        raise ValueError(f"not a quantity: {quantity!r}")
    return Decimal(match[1]) * _FACTORS[match[2]]
