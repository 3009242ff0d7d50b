"""``make bench``: every figure in one go, or those named: retrieval, start, weaviate, cluster.

Figures are printed and never asserted: quality has its own tests, and speed depends on the machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTEST = ("-m", "pytest", "-q", "-s", "--no-header", "-p", "no:warnings")
PARTS: dict[str, tuple[str, ...]] = {
    "retrieval": ("-m", "bench.retrieval"),
    "start": ("-m", "bench.start"),
    "weaviate": ("-m", "bench.weaviate"),
    "cluster": (*PYTEST, "tests/cluster", "-k", "minimal_sample or fifty or pods_that_are_lost"),
}


def main() -> int:
    """Entry point; goes on after a part that fails, and says so at the end."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    names = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    failed = []
    for name in names:
        print(f"\n== {name} ==", flush=True)
        if subprocess.run([sys.executable, *PARTS[name]], cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
