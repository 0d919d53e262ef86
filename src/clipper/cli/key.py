"""``clipper key``: who may call the query port."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from clipper.cli.options import AsJson, Home, MaxInFlight, MaxPerSecond, Url, parse_count, parse_optional
from clipper.cli.output import Output
from clipper.client import Clipper

commands = typer.Typer(no_args_is_help=True, help="Keys: who may call the query port, and how much.")

Name = Annotated[str, typer.Argument(help="Whom or what the key is for.")]


@commands.command()
def create(
    name: Name,
    app: Annotated[
        list[str] | None,
        typer.Option("--app", help="An application that it is for. May be repeated.", show_default="all"),
    ] = None,
    max_in_flight: MaxInFlight = "none",
    max_per_second: MaxPerSecond = "none",
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once."""
    with Clipper.connect(url, home) as clipper:
        made = clipper.create_key(
            name,
            applications=app or (),
            max_in_flight=parse_count(max_in_flight),
            max_per_second=parse_optional(max_per_second),
        )
    step = (
        "keep it where nobody else reads it; it is asked for by clipper start --api-keys, or app update --require-key"
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
            f"{datetime.fromtimestamp(one.created_at, UTC):%Y-%m-%d %H:%M} UTC",
        )
        for one in found
    ]
    columns = ("name", "applications", "max in flight", "max per second", "made")
    Output(as_json).table(found, columns, rows, "no keys; next: clipper key create NAME")


@commands.command()
def revoke(name: Name, home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Have a key refused from now on, also on connections that are open."""
    with Clipper.connect(url, home) as clipper:
        clipper.revoke_key(name)
    Output(as_json).done({"revoked": name}, f"key {name} is revoked", "next: clipper key list")
