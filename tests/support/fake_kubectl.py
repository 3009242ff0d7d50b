"""A ``kubectl`` that answers from a folder, for tests of what is made of its answers.

FOLDER/answers.json maps a part of the command line to what is printed; FOLDER/calls.txt gets every command line.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(folder: Path, words: list[str]) -> int:
    """Print the answer whose key is in the command line; the longest key wins."""
    line = " ".join(words)
    with (folder / "calls.txt").open("a") as calls:
        calls.write(f"{line}\n")
    answers = json.loads((folder / "answers.json").read_text())
    keys = sorted((key for key in answers if key in line), key=len)
    if not keys:
        sys.stderr.write(f"Error from server (NotFound): nothing for {line}\n")
        return 1
    answer = answers[keys[-1]]
    print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)
    if words[0] == "port-forward":
        time.sleep(60)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
