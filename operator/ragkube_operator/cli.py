"""The ``ragkube`` command, also ``kubectl ragkube``. Each command imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ragkube_operator.cli_admin import cache_app, keys_app
from ragkube_operator.cli_options import (
    AsJson,
    Deployment,
    KubeContext,
    Namespace,
    Server,
    in_cluster,
    with_server,
)
from ragkube_operator.cli_output import FAILED, USAGE, CliError, Output

if TYPE_CHECKING:
    from ragkube_operator.client import Client

app = typer.Typer(
    name="ragkube",
    help="Questions answered from your own documents, with citations: on one machine or in Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
documents_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, show or delete documents."
)
app.add_typer(documents_app, name="documents")
app.add_typer(cache_app, name="cache")
app.add_typer(keys_app, name="keys")

File = Annotated[Path, typer.Argument(metavar="FILE", help="a RagDeployment in YAML or JSON")]
Name = Annotated[str | None, typer.Option("--name", help="which RagDeployment, when FILE holds several")]


@app.command()
def run(
    file: File,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any free one")] = 8080,
    documents: Annotated[
        Path | None, typer.Option(help="answer from this folder instead of the sources in FILE")
    ] = None,
    data: Annotated[Path, typer.Option(help="where the index is kept")] = Path(".ragkube"),
    secrets: Annotated[
        Path, typer.Option(help="values of referenced Secrets: one file DIR/SECRET/KEY each")
    ] = Path(".ragkube-secrets"),
    name: Name = None,
    anthropic_api_key: Annotated[
        str | None,
        typer.Option(envvar="ANTHROPIC_API_KEY", hidden=True, help="prefer the variable or --secrets"),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show the API's log lines")] = False,
) -> None:
    """Run the RagDeployment in FILE as processes on this machine, without a cluster."""
    from ragkube_operator import local

    options = local.Options(
        file=file, name=name, host=host, port=port, documents=documents, data=data, secrets=secrets,
        anthropic_api_key=anthropic_api_key, verbose=verbose,
    )  # fmt: skip
    hidden = {"ANTHROPIC_API_KEY", "RAGKUBE_API_KEY"}
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    raise typer.Exit(local.run(options, Output(), environment))


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="files to check")]) -> None:
    """Check RagDeployments, in the words of the API server."""
    from ragkube_operator import cli_manifest

    if not cli_manifest.validate(files, Output()):
        raise typer.Exit(USAGE)


@app.command()
def render(
    file: File,
    name: Name = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="where it will be, unlike FILE says")
    ] = None,
    api_image: Annotated[str | None, typer.Option(help="image of the API; default: this version's")] = None,
) -> None:
    """Print every object the operator would apply for FILE, in order, as YAML."""
    from ragkube_operator import cli_manifest

    text = cli_manifest.rendered(file, name=name, namespace=namespace, api_image=api_image)
    Output().console.out(text, highlight=False, end="")


@app.command()
@with_server
def ask(
    server: Server,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME] QUESTION", help="3 to 1,000 characters; before it the RagDeployment to ask"
        ),
    ],
    k: Annotated[int | None, typer.Option("--k", help="how many passages to answer from (1-20)")] = None,
    alpha: Annotated[float | None, typer.Option(help="1: vectors only, 0: BM25 only")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="metadata must match; repeatable"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="another model than the deployment's default")] = None,
    as_json: AsJson = False,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """Ask a question; the answer comes with citations. With NAME, that RagDeployment in the cluster is asked."""
    from ragkube_operator import cli_cluster, cli_query

    name, question = cli_cluster.target(words, in_cluster=in_cluster(namespace, kube_context, server.url))
    body = cli_query.request(question, k=k, alpha=alpha, filters=filters or (), model=model)
    opened: AbstractContextManager[Client]
    if name or in_cluster(namespace, kube_context, server.url):
        where = cli_cluster.Where(name, namespace, kube_context)
        opened = where.client(server.given_key(), server.tenant)
    else:
        opened = server.client()
    with opened as api:
        cli_query.ask(api, Output(), body, as_json=as_json)


@app.command()
@with_server
def ingest(
    server: Server,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="files, or folders with all in them")
    ],
    prefix: Annotated[str, typer.Option(help="put before every document's id")] = "",
    meta: Annotated[
        list[str] | None, typer.Option("--meta", metavar="KEY=VALUE", help="metadata of all; repeatable")
    ] = None,
) -> None:
    """Upload documents; a file that cannot be used is reported and the others go on."""
    from ragkube_operator import cli_documents, cli_query

    output = Output()
    metadata = cli_query.parse_pairs("--meta", meta or ())
    files = cli_documents.collect(paths, prefix)
    with server.client() as api:
        tally = cli_documents.ingest(api, output, files, metadata)
    output.line(tally.sentence())
    cli_documents.report_failures(output, tally.failures)
    if tally.failures:
        raise typer.Exit(FAILED)


@documents_app.command("list")
@with_server
def list_documents(
    server: Server,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Every document, in order of its id."""
    from ragkube_operator import cli_documents

    with server.client() as api:
        cli_documents.list_documents(api, Output(), as_json=as_json)


@documents_app.command("get")
@with_server
def get_document(
    server: Server,
    document_id: Annotated[str, typer.Argument(metavar="ID")],
    content: Annotated[
        bool, typer.Option("--content", help="the stored text that citations refer to")
    ] = False,
) -> None:
    """What is known of one document, or its text."""
    from ragkube_operator import cli_documents

    with server.client() as api:
        cli_documents.get_document(api, Output(), document_id, content=content)


@documents_app.command("delete")
@with_server
def delete_documents(
    server: Server,
    document_ids: Annotated[list[str], typer.Argument(metavar="ID...")],
) -> None:
    """Delete documents; no later answer uses them."""
    from ragkube_operator import cli_documents

    with server.client() as api:
        cli_documents.delete_documents(api, Output(), document_ids)


@app.command()
@with_server
def status(
    server: Server,
    name: Deployment = None,
    as_json: AsJson = False,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """Of a RagDeployment in the cluster: conditions, and what to do. Without NAME: health of the API at --url."""
    from ragkube_operator import cli_cluster, cli_status

    if name or in_cluster(namespace, kube_context, server.url):
        if not cli_cluster.Where(name, namespace, kube_context).status(Output(), as_json=as_json):
            raise typer.Exit(FAILED)
        return
    with server.client() as api:
        if not cli_status.status(api, Output(), as_json=as_json):
            raise typer.Exit(FAILED)


@app.command()
def top(
    name: Deployment = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=300, help="how long to count rates")] = 2.0,
    as_json: AsJson = False,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """What each API pod of a RagDeployment is doing: load, hits, latency."""
    from ragkube_operator import cli_cluster

    cli_cluster.Where(name, namespace, kube_context).top(Output(), seconds=seconds, as_json=as_json)


@app.command()
def logs(
    name: Deployment = None,
    component: Annotated[
        list[str] | None,
        typer.Option(help="api, worker, redis or weaviate; repeatable; default: api and worker"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with new lines")] = False,
    since: Annotated[str | None, typer.Option(help="only lines of the last 5m, 1h, …")] = None,
    tail: Annotated[int, typer.Option(min=-1, help="lines of each pod at most; -1: all")] = 100,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """The log lines of all pods of a RagDeployment, in order, readable."""
    from ragkube_operator import cli_cluster

    options = (f"--tail={tail}", *((f"--since={since}",) if since else ()))
    where = cli_cluster.Where(name, namespace, kube_context)
    where.logs(Output(), tuple(component or ("api", "worker")), options, follow=follow)


@app.command()
def version() -> None:
    """Print the version."""
    from ragkube_operator import cli_manifest

    Output().line(f"ragkube {cli_manifest.version()}")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point: errors are sentences on standard error, never tracebacks."""
    program = Path(sys.argv[0]).name
    options: dict[str, Any] = {
        "prog_name": "kubectl ragkube" if program.startswith("kubectl-") else "ragkube"
    }
    try:
        app(arguments, **options)
    except CliError as error:
        Output().fail(error)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
