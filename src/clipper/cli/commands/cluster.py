"""``clipper cluster``: what servers have on a Ray cluster."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from clipper.base.extras import has_ray
from clipper.cli.options import AsJson, Yes, confirm
from clipper.cli.output import Output
from clipper.cli.process import run_program
from clipper.cli.server import Commands
from clipper.errors import InvalidArgument, NotFound

commands = Commands("The processes of servers on a Ray cluster, including servers that are gone.")

# Ray takes seconds to join a cluster, and actors answer their open queries before they end.
_TIMEOUT_S = 120.0

Address = Annotated[str, typer.Option("--ray-address", help="HOST:PORT of the cluster, or auto for this machine's.")]
Python = Annotated[
    Path | None,
    typer.Option("--ray-python", help="An interpreter that has Clipper and Ray in the cluster's versions."),
]


class Owner(Struct, frozen=True):
    """An owner of processes on the cluster: a home, or the servers that share a registry."""

    owner: str
    replicas: int
    workers: int
    models: tuple[str, ...] = ()


@commands.command("list")
def list_all(ray_address: Address = "auto", ray_python: Python = None, as_json: AsJson = False) -> None:
    """List the owners of replicas and query workers on the cluster's nodes."""
    found = _asked(ray_python, ray_address)
    rows = [(one.owner, one.replicas, one.workers, ", ".join(one.models)) for one in found]
    Output(as_json).table(found, ("owner", "replicas", "workers", "models"), rows, "no server has anything there")


@commands.command()
def clean(
    owner: Annotated[str, typer.Argument(help="The owner, as clipper cluster list shows it.")],
    yes: Yes = False,
    ray_address: Address = "auto",
    ray_python: Python = None,
    as_json: AsJson = False,
) -> None:
    """End all processes of an owner on the cluster whose server will not come back."""
    known = next((one for one in _asked(ray_python, ray_address) if one.owner == owner), None)
    if known is None:
        raise NotFound(f"{owner!r:.100} has nothing on this cluster: expected an owner of clipper cluster list")
    what = f"{known.replicas} replicas and {known.workers} query workers of {owner}"
    confirm(
        f"End {what}? A server that uses them would lose open queries, and start others.",
        f"{what} may be in use: make sure that no server of theirs runs, and add --yes",
        yes=yes,
    )
    _asked(ray_python, ray_address, owner)
    Output(as_json).done(known, f"ended {what}")


def _asked(python: Path | None, *arguments: str) -> list[Owner]:
    """Ask the program of ``managers.ray``. It is a process of its own, since Ray may need another Python."""
    if python is None and not has_ray():
        raise InvalidArgument("clipper cluster needs Ray: pip install 'clipper-serving[ray]', or give --ray-python")
    command = [str(python or sys.executable), "-m", "clipper.supervisor.managers.ray.orphans", *arguments]
    return run_program(command, list[Owner], _TIMEOUT_S)
