"""Options that several commands share, and the client that they describe."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from ragkube_operator.cli_output import USAGE, CliError

if TYPE_CHECKING:
    from ragkube_operator.client import Client

P = ParamSpec("P")
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


@dataclass(frozen=True)
class Server:
    """The API that a command talks to; each field is an option."""

    url: Url = DEFAULT_URL
    api_key_file: KeyFile = None
    api_key: Key = None
    tenant: Tenant = None

    def client(self) -> Client:
        """Raises ``CliError`` when the key cannot be read."""
        from ragkube_operator.client import Client

        return Client(self.url, api_key=self.given_key(), tenant=self.tenant)

    def given_key(self) -> str | None:
        """The API key of the options; raises ``CliError`` when its file cannot be read."""
        if self.api_key_file is None:
            return self.api_key
        try:
            return self.api_key_file.read_text().strip()
        except OSError as error:
            msg = f"cannot read the API key file {self.api_key_file}: {error.strerror}"
            raise CliError(msg, exit_code=USAGE) from error
        except UnicodeDecodeError as error:
            msg = f"the API key file {self.api_key_file} is no text file"
            raise CliError(msg, exit_code=USAGE) from error


def with_server(command: Callable[Concatenate[Server, P], None]) -> Callable[..., None]:
    """A command whose first parameter is made of the options of ``Server``, which come after its own."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    options = list(inspect.signature(Server, eval_str=True).parameters.values())

    @functools.wraps(command)
    def run(**values: Any) -> None:
        server = Server(**{option.name: values.pop(option.name) for option in options})
        command(server, **values)  # type: ignore[call-arg]

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *options)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
