"""Options that several commands share, and the client that they describe."""

from __future__ import annotations

import sys
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
Deployment = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="a RagDeployment; default: the only one of the namespace"),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="of the cluster; default: that of the kubeconfig")
]
KubeContext = Annotated[str | None, typer.Option("--context", help="of the kubeconfig")]


def in_cluster(namespace: str | None, context: str | None, url: str = DEFAULT_URL) -> bool:
    """Whether a cluster is meant although no RagDeployment is named; a URL that is given wins over the program's name."""
    as_plugin = Path(sys.argv[0]).name.startswith("kubectl-") and url == DEFAULT_URL
    return bool(namespace or context) or as_plugin


def client(url: str, api_key_file: Path | None, api_key: str | None, tenant: str | None) -> Client:
    """One for these options; raises ``CliError`` when the key cannot be read."""
    from ragkube_operator.client import Client

    return Client(url, api_key=given_key(api_key_file, api_key), tenant=tenant)


def given_key(api_key_file: Path | None, api_key: str | None) -> str | None:
    """The API key of the options; raises ``CliError`` when its file cannot be read."""
    if api_key_file is None:
        return api_key
    try:
        return api_key_file.read_text().strip()
    except OSError as error:
        msg = f"cannot read the API key file {api_key_file}: {error.strerror}"
        raise CliError(msg, exit_code=USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError(f"the API key file {api_key_file} is no text file", exit_code=USAGE) from error
