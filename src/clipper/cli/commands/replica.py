"""``clipper replica``: the processes that run models."""

from collections.abc import Sequence

import typer

from clipper.api.schemas import Replica
from clipper.cli.names import ReplicaId
from clipper.cli.options import AsJson, Home, Url
from clipper.cli.output import Output
from clipper.client import Clipper

commands = typer.Typer(no_args_is_help=True, help="Replicas: the processes that run models.")

_COLUMNS = ("id", "model", "version", "state", "pid", "restarts", "batch limit", "log")


@commands.command("list")
def list_all(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the replicas."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.replicas()
    out = Output(as_json)
    out.table(found, *table(found), "no replicas; next: clipper deploy NAME MODEL")
    for replica in found:
        _note_error(out, replica)


@commands.command()
def show(
    replica_id: ReplicaId,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show a replica."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.replica(replica_id)
    out = Output(as_json)
    out.table(found, *table([found]), "")
    _note_error(out, found)


def table(replicas: Sequence[Replica]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """The columns and the rows; also the node if a replica runs on another machine."""
    columns = _COLUMNS if all(replica.node is None for replica in replicas) else (*_COLUMNS, "node")
    names = [column.replace(" ", "_") for column in columns]
    return columns, [tuple(getattr(replica, name) for name in names) for replica in replicas]


def _note_error(out: Output, replica: Replica) -> None:
    if replica.last_error:
        out.note(f"{replica.id}: {replica.last_error}")
