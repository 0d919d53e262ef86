"""``clipper replica``: the processes that run models."""

from typing import Annotated

import typer

from clipper.cli.options import AsJson, Home, Url
from clipper.cli.output import Output
from clipper.client import Clipper
from clipper.management.schemas import Replica

commands = typer.Typer(no_args_is_help=True, help="Replicas: the processes that run models.")

_COLUMNS = ("id", "model", "version", "state", "pid", "restarts", "batch limit", "log", "last error")


@commands.command("list")
def list_all(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the replicas."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.replicas()
    rows = [_row(replica) for replica in found]
    Output(as_json).table(found, _COLUMNS, rows, "no replicas; next: clipper deploy NAME MODEL")


@commands.command()
def show(
    replica_id: Annotated[str, typer.Argument(help="The replica's id, e.g. digits:2#1.", metavar="ID")],
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show a replica."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.replica(replica_id)
    Output(as_json).table(found, _COLUMNS, [_row(found)], "")


def _row(replica: Replica) -> tuple[object, ...]:
    return (
        replica.id,
        replica.model,
        replica.version,
        replica.state,
        replica.pid,
        replica.restarts,
        replica.batch_limit,
        replica.log,
        replica.last_error,
    )
