"""``python -m bench [SECTION…] [OPTION…]``: print the figures of all sections, or of those named, with its options."""

from __future__ import annotations

import argparse
import subprocess
import sys

SECTIONS = ("retrieval", "semantic", "start", "telemetry", "weaviate", "cache", "platform", "operator_scale")
"""Modules beside this one; each runs in a process of its own, so that memory and imports are its own."""


def main() -> int:
    """Run the sections one after the other; the exit code says whether one of them failed."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of: {', '.join(SECTIONS)}")
    known, options = parser.parse_known_args()
    wanted = known.sections or SECTIONS
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        parser.error(f"no section {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    failed = False
    for name in wanted:
        print(f"== {name}", flush=True)
        failed |= (
            subprocess.run([sys.executable, "-m", f"bench.{name}", *options], check=False).returncode != 0
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
