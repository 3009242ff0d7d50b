"""Pure comparison of what we want with what the API server holds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

Path = tuple[str | int, ...]

# lists that the API server merges by key: entries of other writers (an injected sidecar) are left alone
_MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_QUANTITY_PARENTS = frozenset({"limits", "requests", "capacity", "target"})
_QUANTITY_FIELDS = frozenset({"sizeLimit", "storage"})
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][0-9]+|m|k|[MGTPE]|[KMGTPE]i|)")
_SUFFIX = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(1000),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}


def digest(manifest: Mapping[str, Any]) -> str:
    """A short fingerprint of a manifest: changes when a field is changed, added or removed."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(desired: Any, live: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every place where the live object lacks or contradicts what is desired, with the live value there."""
    if _nothing(desired) and _nothing(live):
        return
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        for key, value in desired.items():
            yield from differences(value, live.get(key), (*path, key))
    elif isinstance(desired, list) and isinstance(live, list):
        yield from _list_differences(desired, live, path)
    elif not _same(desired, live, path):
        yield path, live


def _list_differences(desired: list[Any], live: list[Any], path: Path) -> Iterator[tuple[Path, Any]]:
    keys = _MERGE_KEYS.get(str(path[-1])) if path else None
    if keys:
        by_key = {tuple(item.get(key) for key in keys): item for item in live}
        for index, item in enumerate(desired):
            match = by_key.get(tuple(item.get(key) for key in keys))
            yield from differences(item, match, (*path, index))
    elif len(desired) != len(live):
        yield path, live
    else:
        for index, (wanted, found) in enumerate(zip(desired, live, strict=True)):
            yield from differences(wanted, found, (*path, index))


def _nothing(value: Any) -> bool:
    """The API server drops empty collections and strings; False and 0 can mean something."""
    return value is None or (isinstance(value, Mapping | list | str) and not value)


def _same(desired: Any, live: Any, path: Path) -> bool:
    if desired == live and isinstance(desired, bool) == isinstance(live, bool):
        return True
    quantity = len(path) > 1 and (path[-2] in _QUANTITY_PARENTS or path[-1] in _QUANTITY_FIELDS)
    return quantity and None is not _amount(desired) == _amount(live)


def _amount(value: Any) -> Decimal | None:
    match = _QUANTITY.fullmatch(str(value))
    if not match:
        return None
    number, suffix = match.groups()
    scale = _SUFFIX.get(suffix)
    return Decimal(number) * scale if scale is not None else Decimal(f"{number}{suffix}")
