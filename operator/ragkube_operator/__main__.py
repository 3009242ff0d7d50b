"""``python -m ragkube_operator [serve|check]``: the operator, or whether one is at work; set by the environment."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ragkube_operator.options import Options


_USAGE = "usage: python -m ragkube_operator [serve|check]   (docs/operator.md lists the variables)"


def main(arguments: list[str]) -> int:
    """Entry point of the operator's image; problems are one sentence on standard error and exit code 2."""
    command = arguments[0] if len(arguments) == 1 else "" if arguments else "serve"
    if command not in {"serve", "check"}:
        sys.stderr.write(f"{_USAGE}\n")
        return 2
    # The first process of a container ignores SIGTERM unless it says otherwise; running replaces this.
    signal.signal(signal.SIGTERM, _leave)
    from ragkube_operator.errors import ConfigurationError
    from ragkube_operator.options import Options

    try:
        return _run(command, Options.read(os.environ))
    except ConfigurationError as error:
        sys.stderr.write(f"ragkube-operator: {error}\n")
        return 2


def _run(command: str, options: Options) -> int:
    if command == "check":
        from ragkube_operator import check

        return check.run(options)
    from ragkube_operator import process

    process.start(options)
    return 0


def _leave(_signal: int, _frame: FrameType | None) -> None:
    # nothing runs yet that would need an orderly end, and an import may swallow SystemExit
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
