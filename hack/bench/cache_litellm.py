"""The LiteLLM proxy for ``bench.cache``: its answers lie in our Redis Cluster, its model is our Messages API, keys are on.

It is installed once, into an environment of its own under the cache directory: what it requires is none of ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bench.cache_servers import KEY, Server, World
from cluster.testbed.paths import cache_root

VERSION = "1.106.2"
PATH = "/v1/chat/completions"
_MODEL = "claude-behind-litellm"
# from its guide for production; nothing is fetched from elsewhere
_ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}


class UnavailableError(Exception):
    """It cannot be installed or started here; the message says why."""


def bodies(questions: Sequence[str]) -> list[bytes]:
    """The same questions, as its clients ask them."""
    return [
        json.dumps({"model": _MODEL, "messages": [{"role": "user", "content": text}]}).encode()
        for text in questions
    ]


def start(world: World, asked: Sequence[bytes]) -> Server:
    """One uvicorn worker on the server's core, every question answered before; raises ``UnavailableError``."""
    command = [str(_program()), "--config", str(_configured(world)), "--host", "127.0.0.1", "--port", "PORT"]
    server = world.server("litellm", [*command, "--num_workers", "1"], environment=_ENVIRONMENT, path=PATH)
    try:
        server.start("/health/liveliness")
        for _ in range(2):
            for body in asked:
                server.ask(body)
    except (SystemExit, OSError) as error:
        server.stop()
        raise UnavailableError(f"{error}: {_tail(world.folder / 'litellm.log')}") from error
    made = model_calls(world)
    if made != len(asked):
        server.stop()
        raise UnavailableError(
            f"it asked its model {made} times for {len(asked)} questions: its cache is off"
        )
    return server


def model_calls(world: World) -> int:
    """How often the proxy asked its model, by the model's own count."""
    assert world.llm is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{world.llm.port}/control/requests", timeout=60) as found:
        return sum(request["model"] == _MODEL for request in json.load(found))


def _configured(world: World) -> Path:
    assert world.llm is not None
    nodes = [{"host": "127.0.0.1", "port": port} for port in world.redis.ports[:3]]
    model = {
        "model": f"anthropic/{_MODEL}", "api_base": f"http://127.0.0.1:{world.llm.port}", "api_key": "sk-test",
    }  # fmt: skip
    document = {
        "model_list": [{"model_name": _MODEL, "litellm_params": model}],
        "litellm_settings": {
            "cache": True, "telemetry": False,
            "cache_params": {"type": "redis", "redis_startup_nodes": nodes, "ttl": 86_400},
        },
        "general_settings": {"master_key": KEY},
    }  # fmt: skip
    file = world.folder / "litellm.yaml"
    file.write_text(json.dumps(document))
    return file


def _program() -> Path:
    home = cache_root() / "bench" / f"litellm-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    if not (home / "installed").exists():
        python = home / "bin" / "python"
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        _run(str(python), "-m", "pip", "install", "--quiet", f"litellm[proxy]=={VERSION}")
        (home / "installed").touch()
    return home / "bin" / "litellm"


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"it cannot be installed: {str(error.stderr).strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"it cannot be installed: {error}") from error


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split())[-300:]
