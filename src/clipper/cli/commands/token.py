"""``clipper token``: who else may call the management API."""

from typing import Annotated

import typer

from clipper.base.tls.expiry import day
from clipper.cli.options import AsJson, Expires, Home, Url, one_of, until
from clipper.cli.output import Output
from clipper.client import Clipper
from clipper.values.types import Role

commands = typer.Typer(no_args_is_help=True, help="Tokens: who else may call the management API.")

Name = Annotated[str, typer.Argument(help="Who or what the token is for.")]


@commands.command()
def create(
    name: Name,
    role: Annotated[Role, one_of(Role, help="admin may change everything, read can only read.")] = "read",
    expires: Expires = None,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make a token. It is shown only now."""
    with Clipper.connect(url, home) as clipper:
        made = clipper.create_token(name, role, expires_at=expires)
    step = "keep it where nobody else reads it; commands read it from CLIPPER_TOKEN"
    Output(as_json).secret(made, made.token, step)


@commands.command("list")
def list_all(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the tokens that were made."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.tokens()
    rows = [(one.name, one.role, day(one.created_at), until(one.expires_at)) for one in found]
    empty = "no tokens but the server's own; next: clipper token create NAME"
    Output(as_json).table(found, ("name", "role", "made", "expires"), rows, empty)


@commands.command()
def revoke(name: Name, home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Refuse a token from now on."""
    with Clipper.connect(url, home) as clipper:
        clipper.revoke_token(name)
    Output(as_json).done({"revoked": name}, f"token {name} is revoked", "next: clipper token list")
