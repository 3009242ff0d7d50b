"""``python hack/simulator``: the table of every trace and rule; ``--write`` puts it and its picture into the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "operator")]

from simulator.picture import picture  # noqa: E402
from simulator.play import MISSES_PER_REPLICA_MINUTE, results, table  # noqa: E402

PAGE = HERE.parents[1] / "docs" / "autoscaling.md"
PICTURE = HERE.parents[1] / "docs" / "img" / "autoscaling.svg"
BEGIN, END = "<!-- simulator -->\n", "<!-- /simulator -->"


def main() -> None:
    """Print, and write when asked."""
    found = results()
    text = table(found)
    print(f"{text}\nscore = replica-minutes + SLO misses / {MISSES_PER_REPLICA_MINUTE}")
    if "--write" in sys.argv[1:]:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.split(END)[1])
        PICTURE.write_text(picture(found))


if __name__ == "__main__":
    main()
