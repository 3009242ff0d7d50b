"""The options of ``ragkube cache`` and ``ragkube keys``. Each command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ragkube_operator.cli_options import AsJson, Server, with_server
from ragkube_operator.cli_output import FAILED, Output

cache_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look into the cache, clear it, warm it up."
)
keys_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys of clients.")


@cache_app.command()
@with_server
def stats(
    server: Server,
    as_json: AsJson = False,
) -> None:
    """What is cached by level and kind, and how often it helped."""
    from ragkube_operator import cli_cache

    with server.client() as api:
        cli_cache.stats(api, Output(), as_json=as_json)


@cache_app.command("list")
@with_server
def list_answers(
    server: Server,
    limit: Annotated[int, typer.Option(min=1, help="how many at most, oldest first")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Cached answers with their questions."""
    from ragkube_operator import cli_cache

    with server.client() as api:
        cli_cache.list_answers(api, Output(), limit=limit, as_json=as_json)


@cache_app.command()
@with_server
def show(
    server: Server,
    answer_id: Annotated[str, typer.Argument(metavar="ID", help="of a response, or of `cache list`")],
) -> None:
    """One cached answer, as JSON."""
    from ragkube_operator import cli_cache

    with server.client() as api:
        cli_cache.show(api, Output(), answer_id)


@cache_app.command()
@with_server
def disown(
    server: Server,
    answer_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="of a response, or of `cache list`")
    ],
) -> None:
    """Remove wrong answers; the same text is never cached again for its question."""
    from ragkube_operator import cli_cache

    with server.client() as api:
        cli_cache.disown(api, Output(), answer_ids)


@cache_app.command()
@with_server
def clear(
    server: Server,
    tag: Annotated[str | None, typer.Option(help="answers with this tag, like class:live-state")] = None,
    document: Annotated[str | None, typer.Option(help="answers that rest on this document")] = None,
    question: Annotated[
        str | None, typer.Option(help="answers to questions like this pattern, with * and ?")
    ] = None,
    kind: Annotated[
        Literal["answer", "retrieval", "document"] | None, typer.Option(help="values of this kind")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="all that the tenant has")] = False,
) -> None:
    """Drop cached values that every given option names, on every replica."""
    from ragkube_operator import cli_cache

    conditions = {"tag": tag, "document": document, "question": question, "kind": kind}
    with server.client() as api:
        cli_cache.clear(api, Output(), conditions, everything=everything)


@cache_app.command()
@with_server
def asked(
    server: Server,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many")] = 20,
    as_json: AsJson = False,
) -> None:
    """The questions that are asked most."""
    from ragkube_operator import cli_cache

    with server.client() as api:
        cli_cache.asked(api, Output(), limit=limit, as_json=as_json)


@cache_app.command()
@with_server
def warm(
    server: Server,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="a question a line, as text or as a JSON body; -: standard input"
        ),
    ] = None,
    most_asked: Annotated[
        int | None, typer.Option(min=1, max=1000, help="so many of the most asked questions")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="how many at a time")] = 4,
) -> None:
    """Answer questions ahead of time, from FILE or the most asked ones."""
    from ragkube_operator import cli_cache

    bodies = cli_cache.warm_bodies(file, most_asked, concurrency)
    with server.client() as api:
        if not cli_cache.warm(api, Output(), bodies):
            raise typer.Exit(FAILED)


@keys_app.command()
def new(
    name: Annotated[str, typer.Option("--name", help="who has it; two keys may have the same name")],
    role: Annotated[
        Literal["reader", "writer", "admin"], typer.Option(help="ask; ask and change documents; everything")
    ],
    tenant: Annotated[str | None, typer.Option(help="its only tenant; without it any may be chosen")] = None,
    tier: Annotated[str | None, typer.Option(help="its rate limit, one of spec.limits.tiers")] = None,
    file: Annotated[
        Path | None, typer.Option(help="add the hashed line to this file instead of printing it")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print key and line as JSON")] = False,
) -> None:
    """Make an API key. It is shown once; only its SHA-256 is kept."""
    from ragkube_operator import cli_keys

    wanted = cli_keys.NewKey(name, role, tenant, tier)
    cli_keys.new(Output(), wanted, file=file, as_json=as_json)
