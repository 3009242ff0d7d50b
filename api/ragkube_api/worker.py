"""``python -m ragkube_api.worker``: keeps the configured sources in a shared store."""

from __future__ import annotations

import sys

from ragkube_api.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["worker"]))
