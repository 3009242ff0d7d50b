"""The log's output: what is written comes out, whatever others do to the pipe."""

from __future__ import annotations

import os
import select

from ragkube_api.log_output import LogOutput


def test_a_pipe_that_others_set_non_blocking_loses_no_line() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    output = LogOutput(writing, lambda count: f"{count} dropped\n")
    lines = [f"{number} {'x' * 1000}\n" for number in range(1000)]  # more than a pipe takes at once
    for line in lines:
        output.write(line)
    expected, got = "".join(lines).encode(), b""
    while len(got) < len(expected):
        assert select.select([reading], [], [], 30)[0], "nobody writes any more"
        got += os.read(reading, 1 << 16)
    assert got == expected
    output.close()
    os.close(writing)
    os.close(reading)
