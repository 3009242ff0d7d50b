"""Options that several commands share, and the client that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragkube_operator.cli_output import USAGE, CliError

if TYPE_CHECKING:
    from ragkube_operator.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"

Url = Annotated[str, typer.Option("--url", envvar="RAGKUBE_URL", help="where the API listens")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", envvar="RAGKUBE_API_KEY_FILE", help="a file that holds the API key"),
]
Key = Annotated[
    str | None, typer.Option("--api-key", envvar="RAGKUBE_API_KEY", hidden=True, help="prefer --api-key-file")
]
Tenant = Annotated[str | None, typer.Option("--tenant", envvar="RAGKUBE_TENANT", help="whose documents")]
AsJson = Annotated[bool, typer.Option("--json", help="print what the API answers")]


def client(url: str, api_key_file: Path | None, api_key: str | None, tenant: str | None) -> Client:
    """One for these options; raises ``CliError`` when the key cannot be read."""
    from ragkube_operator.client import Client

    key = api_key
    if api_key_file is not None:
        try:
            key = api_key_file.read_text().strip()
        except OSError as error:
            msg = f"cannot read the API key file {api_key_file}: {error.strerror}"
            raise CliError(msg, exit_code=USAGE) from error
        except UnicodeDecodeError as error:
            raise CliError(f"the API key file {api_key_file} is no text file", exit_code=USAGE) from error
    return Client(url, api_key=key, tenant=tenant)
