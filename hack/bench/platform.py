"""Figures that need a cluster: apply to Ready, healing of Redis, fifty resources beside each other.

python -m bench.platform
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = "cited_answer or pods_that_are_lost or fifty"
FIGURES = ("kubectl apply of", "of the Redis pods", "fifty resources")


def main() -> int:
    """Run the tests that measure on the way, and print the lines with figures."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/cluster", "-k", TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    print("\n".join(line for line in lines if any(figure in line for figure in FIGURES)))
    if done.returncode:
        print("\n".join(lines[-15:]), file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
