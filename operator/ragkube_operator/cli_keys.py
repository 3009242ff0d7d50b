"""``ragkube keys``: API keys of clients. A key is shown once; what is kept of it is its SHA-256."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ragkube_operator.cli_output import USAGE, CliError, Output

PREFIX = "ragkube_"
"""By it, programs that look for leaked secrets find keys."""
_RULES = {
    "name": (re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?"), "at most 63 of a-z, 0-9, '-' and '.'"),
    "tenant": (re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"), "at most 63 of a-z, 0-9 and inner '-'"),
    "tier": (re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"), "at most 40 of a-z, 0-9 and inner '-'"),
}


@dataclass(frozen=True, slots=True)
class NewKey:
    """Who gets it and what it may do; without a tenant it may choose, without a tier it has the default one."""

    name: str
    role: Literal["reader", "writer", "admin"]
    tenant: str | None = None
    tier: str | None = None


def new(output: Output, wanted: NewKey, *, file: Path | None, as_json: bool) -> None:
    """Make a key and print it; its line is printed too, or added to the file.

    Raises:
        CliError: a name cannot be one, or the file cannot be written.
    """
    for option, (pattern, rule) in _RULES.items():
        text = getattr(wanted, option)
        if text is not None and not pattern.fullmatch(text):
            raise CliError(f"--{option} {text!r}: {rule}", exit_code=USAGE)
    key = PREFIX + secrets.token_urlsafe(32)
    line = _line(key, wanted)
    if file is not None:
        _append(file, line)
    if as_json:
        output.console.out(json.dumps({"key": key, "line": line}), highlight=False)
        return
    output.console.out(key, highlight=False)
    if file is not None:
        output.warn(f"the key is shown only now; its line was added to {file}")
    else:
        output.warn(
            "the key is shown only now; this line belongs into the Secret of spec.auth.apiKeysSecretRef:"
        )
        output.console.out(line, highlight=False)


def _line(key: str, wanted: NewKey) -> str:
    entry = {"name": wanted.name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "role": wanted.role}
    entry |= {"tenant": wanted.tenant} if wanted.tenant is not None else {}
    entry |= {"tier": wanted.tier} if wanted.tier is not None else {}
    return json.dumps(entry)


def _append(file: Path, line: str) -> None:
    """On a line of its own, also when the last one has no end."""
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        joint = "" if not before or before.endswith("\n") else "\n"
        with file.open("a", encoding="utf-8") as stream:
            stream.write(f"{joint}{line}\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text file"
        raise CliError(f"cannot add the key's line to {file}: {reason}", exit_code=USAGE) from error
