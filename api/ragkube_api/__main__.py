"""``python -m ragkube_api [serve|worker|check]``: the API, the worker, or a check of the settings file."""

from __future__ import annotations

import signal
import sys
from types import FrameType

_USAGE = "usage: python -m ragkube_api [serve|worker|check]   (settings: the file RAGKUBE_SETTINGS names)"


def main(arguments: list[str]) -> int:
    """Run the command; problems are one sentence on standard error and exit code 1."""
    # The first process of a container ignores SIGTERM unless it says otherwise; serving replaces this.
    signal.signal(signal.SIGTERM, _leave)
    from ragkube_api.errors import SettingsError, StartupError

    command = arguments[0] if len(arguments) == 1 else "serve" if not arguments else ""
    try:
        return _run(command)
    except (SettingsError, StartupError) as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _run(command: str) -> int:
    from ragkube_api import settings

    if command not in {"serve", "worker", "check"}:
        sys.stderr.write(f"{_USAGE}\n")
        return 2
    loaded = settings.from_environment()
    if command == "check":
        return 0
    from ragkube_api import process

    process.run(loaded, worker=command == "worker")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
