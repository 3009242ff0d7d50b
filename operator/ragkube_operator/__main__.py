"""The operator's process: ``python -m ragkube_operator``; everything is set by the environment."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Entry point of the operator's image; problems are one sentence on standard error and exit code 2."""
    # The first process of a container ignores SIGTERM unless it says otherwise; running replaces this.
    signal.signal(signal.SIGTERM, _leave)
    from ragkube_operator import process
    from ragkube_operator.errors import ConfigurationError
    from ragkube_operator.options import Options

    try:
        process.start(Options.read(os.environ))
    except ConfigurationError as error:
        sys.stderr.write(f"ragkube-operator: {error}\n")
        return 2
    return 0


def _leave(_signal: int, _frame: FrameType | None) -> None:
    # nothing runs yet that would need an orderly end, and an import may swallow SystemExit
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
