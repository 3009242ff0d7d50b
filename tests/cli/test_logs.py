"""What ``ragkube run`` writes into ``api.log``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import PATIENCE, environment


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.proves("S6")
def test_a_logged_fault_shows_no_local_variables(form: str) -> None:
    code = f"""
import structlog
from ragkube_api.settings import LogSettings
from ragkube_api.telemetry import configure_logging
configure_logging(LogSettings(format={form!r}))
def fails():
    key = "sk-" + "very" + "-secret"
    raise ValueError("broken")
try:
    fails()
except ValueError as error:
    structlog.get_logger().error("request_failed", exc_info=error)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "ValueError: broken" in result.stdout
    assert "sk-very-secret" not in result.stdout


def test_a_process_whose_log_nobody_reads_still_ends(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    store = {"kind": "embedded", "path": str(tmp_path / "index")}
    settings.write_text(json.dumps({"store": store, "server": {"port": 0}}))
    with subprocess.Popen(
        [sys.executable, "-m", "ragkube_api"], env=environment(RAGKUBE_SETTINGS=str(settings)),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert b"started" in process.stdout.readline()
        process.stdout.close()
        process.terminate()
        process.wait(PATIENCE)
