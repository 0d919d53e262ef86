"""``clipper model`` and ``clipper replica``: models, their versions, and the processes that run them."""

from collections.abc import Sequence
from typing import Annotated

import typer

from clipper.api.schemas import Model, Replica, Version
from clipper.cli.commands.deploy import report_deployed
from clipper.cli.names import NameAndVersion, OfVersion, ReplicaId, model_and_version
from clipper.cli.options import EnvFiles, confirm, parse_scale, read_env_files
from clipper.cli.output import Output, shown_type
from clipper.cli.server import Commands, Server
from clipper.cli.settings import Given, options_of, with_settings
from clipper.settings.variables import secret_of
from clipper.settings.version import Deployment
from clipper.values.records import parse_type, with_open_lengths

commands = Commands("Models and their versions.")
replicas = Commands("Replicas: the processes that run models.")

_COLUMNS = (
    "version", "current", "state", "replicas", "scaling", "batch limit", "batching", "takes", "runtime",
)  # fmt: skip
_REPLICA_COLUMNS = ("id", "model", "version", "state", "pid", "restarts", "batch limit", "log")

# New replicas load the model again. The deployment's own timeout, of an hour at most, also bounds that.
_SCALE_TIMEOUT_S = 600.0


@commands.command("list")
def list_all(server: Server) -> None:
    """List the models."""
    found = server.clipper.models()
    columns = ("name", "current", "state", "replicas ready", "previous", "versions")
    server.out.table(found, columns, [_model_row(one) for one in found], "no models; next: clipper deploy NAME MODEL")


@commands.command()
def show(server: Server, name: NameAndVersion) -> None:
    """Show a model's versions, or the named version, with their replicas' states, batch limits and last errors."""
    out, (model, wanted) = server.out, model_and_version(name, None)
    found: Model | Version = server.clipper.version(model, wanted) if wanted else server.clipper.model(model)
    versions = found.versions if isinstance(found, Model) else [found]
    out.table(found, _COLUMNS, [_row(version) for version in versions], f"{name} has no versions")
    for version in versions:
        if version.output_type:
            out.note(f"version {version.version} answers {_outputs(version)}")
        if version.output_is_untyped:
            out.note(
                f"version {version.version} answers JSON of no type, as its first answer; --output-type declares one"
            )
        if version.source:
            out.note(f"version {version.version} came from {version.source}")
        if variables := ", ".join((*version.variables, *map(_secret_text, version.secrets))):
            out.note(f"version {version.version} has the variables {variables}")
        if version.description:
            out.note(f"version {version.version}: {version.description}")
        if version.warning:
            out.note(f"warning: version {version.version}: {version.warning}")
        if version.stopped:
            out.note(f"version {version.version} was stopped: {version.stopped}")
        # Each cause once.
        errors = dict.fromkeys((version.last_error, *(replica.last_error for replica in version.replicas)))
        for error in filter(None, errors):
            out.note(f"version {version.version}: {error}")


def _secret_text(text: str) -> str:
    variable, secret = secret_of(text)
    return f"{variable} (secret{f' {secret}' if secret != variable else ''})"


@commands.command()
@with_settings(settings=options_of(Deployment, to_change=True))
def redeploy(
    server: Server,
    name: NameAndVersion,
    *,
    settings: Given,
    env_file: EnvFiles = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(help="A variable or secret to leave out. May be repeated.", metavar="NAME", show_default="none"),
    ] = None,
) -> None:
    """Deploy the current version again as a new one, with the given settings changed, and today's secrets."""
    name, version = model_and_version(name, None)
    if version is not None and version != (current := server.clipper.model(name).current):
        raise typer.BadParameter(f"version {version} is not current, {current} is: clipper model rollback {name} first")
    settings["env"] = read_env_files(env_file) | settings.get("env", {})
    with server.out.progress("deploying") as progress:
        made = server.clipper.redeploy(name, without=unset or (), progress=progress, **settings)
    report_deployed(server, made)


@commands.command()
def rollback(
    server: Server,
    name: NameAndVersion,
    to: Annotated[str | None, typer.Option("--to", "--version", help="The version to make current.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even if the version was stopped.")] = False,
) -> None:
    """Make the previous version, or --to, current. Asks first if a guardrail stopped that version."""
    out, (name, to) = server.out, model_and_version(name, to, "--to")
    allow_stopped = to is not None and _confirms(server.clipper.version(name, to), out, yes=yes)
    with out.progress(f"rolling {name} back"):
        now = server.clipper.rollback(name, to, allow_stopped=allow_stopped)
    step = f"next: clipper model rollback {name} goes back to {now.previous}" if now.previous else ""
    out.done(now, f"{name}:{now.current} is current: queries go to it", step)


@commands.command()
def scale(
    server: Server,
    name: NameAndVersion,
    replicas: Annotated[
        str, typer.Argument(help="How many processes run it; a range, e.g. 1..4, lets the load decide; 0 unloads it.")
    ],
    version: OfVersion = None,
) -> None:
    """Set the number of replicas of the current version, or of --version, or a range in which the load decides.

    An unloaded version answers no queries until it is scaled again.
    """
    out, wanted = server.out, parse_scale(replicas)
    name, version = model_and_version(name, version)
    with out.progress(f"scaling {name}") as progress:
        told = server.clipper.scale(name, wanted, version)
        now = server.clipper.wait_until_ready(name, told.version, _SCALE_TIMEOUT_S, progress)
    has = f"{name}:{now.version} has {now.replicas_wanted} replicas ready"
    if not wanted:
        out.done(now, f"{name}:{now.version} is unloaded", f"next: clipper model scale {name} 1 loads it again")
    elif now.scaling:
        out.done(now, f"{has}; its load decides, within {now.scaling}", f"next: clipper model show {name} says why")
    else:
        out.done(now, has, "next: clipper replica list")


@commands.command()
def delete(server: Server, name: NameAndVersion, version: OfVersion = None) -> None:
    """Remove a model with all its versions, or only --version."""
    out, (name, version) = server.out, model_and_version(name, version)
    what = f"{name}:{version}" if version else name
    with out.progress(f"removing {what}"):
        server.clipper.delete_model(name, version)
    out.done({"deleted": what}, f"{what} is removed", "next: clipper model list")


def _confirms(version: Version, out: Output, *, yes: bool) -> bool:
    """Warn of a version that was stopped or has failed. Return whether it was stopped and shall answer nevertheless.

    Raises Conflict if nobody can be asked.
    """
    name = f"{version.model}:{version.version}"
    if version.state == "failed":
        out.warn(f"{name} has failed ({version.last_error}): it becomes current only if it starts this time")
    if version.stopped is None or version.current:
        return False
    out.warn(f"{name} was stopped ({version.stopped})")
    confirm(
        "Let it answer nevertheless?",
        f"{name} was stopped: deploy a mended version, or add --yes to let this one answer nevertheless",
        yes=yes,
    )
    return True


def _model_row(model: Model) -> tuple[object, ...]:
    """Return a model's row, with the state and the replicas of its current version, or else of its newest."""
    *_, shown = (None, *model.versions, *(version for version in model.versions if version.current))
    state = None if shown is None else shown.condition or shown.state
    ready = None if shown is None else f"{shown.ready_replicas}/{shown.replicas_wanted}"
    return model.name, model.current, state, ready, model.previous, len(model.versions)


def _row(version: Version) -> tuple[object, ...]:
    limits = [replica.batch_limit for replica in version.replicas if replica.batch_limit is not None]
    return (
        version.version,
        "yes" if version.current else "",
        version.condition or version.state,
        f"{version.ready_replicas}/{version.replicas_wanted}",
        ": ".join(str(part) for part in (version.scaling, version.scaling_reason) if part) if version.scaling else "",
        ", ".join(map(str, limits)),
        version.batching.policy,
        None if version.input_type is None else shown_type(version.input_type),
        version.runtime,
    )


def _outputs(version: Version) -> str:
    """Describe the type of a version's outputs; a learned type has open lengths, whatever the first answer's were."""
    first = version.output_type or ""
    if version.output_is_declared:
        return first
    learned = str(with_open_lengths(parse_type(first)))
    if learned == first:
        return f"{learned} (learned from its first answer)"
    return f"{learned} (learned from its first answer, of {first}; --output-type promises such lengths)"


@replicas.command("list")
def list_replicas(server: Server) -> None:
    """List the replicas."""
    found = server.clipper.replicas()
    server.out.table(found, *replica_table(found), "no replicas; next: clipper deploy NAME MODEL")
    for replica in found:
        _note_error(server.out, replica)


@replicas.command("show")
def show_replica(server: Server, replica_id: ReplicaId) -> None:
    """Show a replica."""
    found = server.clipper.replica(replica_id)
    server.out.table(found, *replica_table([found]), "")
    _note_error(server.out, found)


def replica_table(found: Sequence[Replica]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Return the columns and the rows, with the nodes if a replica runs on another machine."""
    columns = _REPLICA_COLUMNS if all(replica.node is None for replica in found) else (*_REPLICA_COLUMNS, "node")
    names = [column.replace(" ", "_") for column in columns]
    return columns, [tuple(getattr(replica, name) for name in names) for replica in found]


def _note_error(out: Output, replica: Replica) -> None:
    if replica.last_error:
        out.note(f"{replica.id}: {replica.last_error}")
