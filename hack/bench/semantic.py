"""Paraphrases from the cache: how many are served and how many of those are wrong, gate by gate.

python -m bench.semantic [--split tune|report]
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from bench import datasets, semantic_proposals, semantic_quora, semantic_verifier


def main(split: str = "report") -> None:
    """Both benchmarks."""
    data = datasets.data_directory()
    if not data.is_dir():
        sys.exit(f"no test data at {data}: set RAGKUBE_TEST_DATA")
    semantic_quora.report(data, split)
    asyncio.run(semantic_proposals.report(data, split))
    asyncio.run(semantic_verifier.cost())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=["tune", "report"], default="report")
    main(parser.parse_args().split)
