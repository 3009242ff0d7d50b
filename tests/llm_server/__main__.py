"""``python -m llm_server --port N``: for demos, also inside a cluster."""

from __future__ import annotations

import argparse

import uvicorn

from llm_server.server import LLMServer


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="llm_server", description="A Messages API for tests and demos.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8089)
    options = parser.parse_args()
    uvicorn.run(LLMServer().app(), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
