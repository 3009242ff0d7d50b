"""``ragkube run`` from the command to the first answer, with everything indexed before.

python -m bench.start
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "manifests" / "samples" / "quickstart.yaml"
QUESTION = {"question": "Which file formats can be ingested?"}
RUNS = 5
PATIENCE_SECONDS = 120.0
WANTED_SECONDS = 5


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answered(port: int) -> bool:
    """Whether a question is answered with a citation."""
    url = f"http://127.0.0.1:{port}/v1/query"
    headers = {"Content-Type": "application/json", "Cache-Control": "no-cache"}
    request = urllib.request.Request(url, json.dumps(QUESTION).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(json.load(response)["citations"])
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def first_answer(data: Path) -> float:
    """Seconds from the command to the first cited answer."""
    port = free_port()
    command = [sys.executable, "-m", "ragkube_operator.cli", "run", str(SAMPLE)]
    command += ["--port", str(port), "--data", str(data)]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not answered(port):
            if process.poll() is not None or time.monotonic() - started > PATIENCE_SECONDS:
                raise SystemExit("ragkube run did not answer")
            time.sleep(0.02)
        seconds = time.monotonic() - started
        process.send_signal(signal.SIGTERM)
    return seconds


def main() -> None:
    """Print the median of a few starts; the first, which indexes, stands alone."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"first start, indexing our docs: {first_answer(Path(folder)):.2f} s to the first answer")
        times = [first_answer(Path(folder)) for _ in range(RUNS)]
    print(
        f"later starts: median {statistics.median(times):.2f} s of {RUNS}, "
        f"{min(times):.2f} to {max(times):.2f} (wanted < {WANTED_SECONDS})"
    )


if __name__ == "__main__":
    main()
