"""``clipper key``: who may call the query port."""

from typing import Annotated

import typer

from clipper.api.schemas import NewKey
from clipper.base.tls.expiry import day
from clipper.cli.options import AsJson, Expires, Home, Url, until
from clipper.cli.output import Output
from clipper.cli.settings import Given, options_of, with_settings
from clipper.client import Clipper

commands = typer.Typer(no_args_is_help=True, help="Keys: who may call the query port, and how much.")

Name = Annotated[str, typer.Argument(help="Who or what the key is for.")]


@commands.command()
@with_settings(settings=options_of(NewKey))
def create(
    name: Name,
    app: Annotated[
        list[str] | None,
        typer.Option("--app", help="An application that the key is for. May be repeated.", show_default="all"),
    ] = None,
    expires: Expires = None,
    *,
    settings: Given,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown only now."""
    with Clipper.connect(url, home) as clipper:
        made = clipper.create_key(name, applications=app or (), expires_at=expires, **settings)
    step = (
        "keep it where nobody else reads it; clipper start --api-keys, or app update --require-key, makes it required"
    )
    Output(as_json).secret(made, made.key, step)


@commands.command("list")
def list_all(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the keys."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.keys()
    rows = [
        (
            one.name,
            ", ".join(one.applications) or "all",
            one.max_in_flight,
            None if one.max_per_second is None else f"{one.max_per_second:g}",
            day(one.created_at),
            until(one.expires_at),
        )
        for one in found
    ]
    columns = ("name", "applications", "max in flight", "max per second", "made", "expires")
    Output(as_json).table(found, columns, rows, "no keys; next: clipper key create NAME")


@commands.command()
def revoke(name: Name, home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Refuse a key from now on, also on open connections."""
    with Clipper.connect(url, home) as clipper:
        clipper.revoke_key(name)
    Output(as_json).done({"revoked": name}, f"key {name} is revoked", "next: clipper key list")
