"""The options of ``ragkube keys``. Each command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ragkube_operator.cli_output import Output

keys_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="API keys of clients.")


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
