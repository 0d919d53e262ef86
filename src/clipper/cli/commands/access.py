"""``clipper token`` and ``clipper key``: further callers of the management API, and callers of the query port."""

from typing import Annotated

import typer

from clipper.api.schemas import NewKey
from clipper.base.tls.expiry import day
from clipper.cli.options import Expires, one_of, until
from clipper.cli.server import Commands, Server
from clipper.cli.settings import Given, options_of, with_settings
from clipper.values.types import Role

tokens = Commands("Tokens, with which others may call the management API.")
keys = Commands("Keys, with which clients call the query port, and their limits.")

TokenName = Annotated[str, typer.Argument(help="Name of the token, e.g. that of the program that uses it.")]
KeyName = Annotated[str, typer.Argument(help="Name of the key, such as that of the client that uses it.")]


@tokens.command("create")
def create_token(
    server: Server,
    name: TokenName,
    role: Annotated[Role, one_of(Role, help="admin may change everything, read can only read.")] = "read",
    expires: Expires = None,
) -> None:
    """Create a token, which is shown only this once."""
    made = server.clipper.create_token(name, role, expires_at=expires)
    step = "keep it where nobody else reads it; commands read it from CLIPPER_TOKEN"
    server.out.secret(made, made.token, step)


@tokens.command("list")
def list_tokens(server: Server) -> None:
    """List the tokens that were made."""
    found = server.clipper.tokens()
    rows = [(one.name, one.role, day(one.created_at), until(one.expires_at)) for one in found]
    empty = "no tokens but the server's own; next: clipper token create NAME"
    server.out.table(found, ("name", "role", "made", "expires"), rows, empty)


@tokens.command("revoke")
def revoke_token(server: Server, name: TokenName) -> None:
    """Refuse a token from now on."""
    server.clipper.revoke_token(name)
    server.out.done({"revoked": name}, f"token {name} is revoked", "next: clipper token list")


@keys.command("create")
@with_settings(settings=options_of(NewKey))
def create_key(
    server: Server,
    name: KeyName,
    app: Annotated[
        list[str] | None,
        typer.Option("--app", help="An application that the key is for. May be repeated.", show_default="all"),
    ] = None,
    expires: Expires = None,
    *,
    settings: Given,
) -> None:
    """Create a key, which is shown only this once."""
    made = server.clipper.create_key(name, applications=app or (), expires_at=expires, **settings)
    step = (
        "keep it where nobody else reads it; clipper start --api-keys, or app update --require-key, makes it required"
    )
    server.out.secret(made, made.key, step)


@keys.command("list")
def list_keys(server: Server) -> None:
    """List the keys."""
    found = server.clipper.keys()
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
    server.out.table(found, columns, rows, "no keys; next: clipper key create NAME")


@keys.command("revoke")
def revoke_key(server: Server, name: KeyName) -> None:
    """Refuse a key from now on, also on open connections."""
    server.clipper.revoke_key(name)
    server.out.done({"revoked": name}, f"key {name} is revoked", "next: clipper key list")
