#!/usr/bin/env python3
"""A real Kubernetes cluster for tests: `python hack/cluster/cluster.py --help`."""

import sys
from pathlib import Path

sys.path[0] = str(
    Path(__file__).resolve().parents[1]
)  # this file's own folder would shadow the package `cluster`

from cluster.testbed.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
