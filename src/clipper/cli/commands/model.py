"""``clipper model``: models, their versions and replicas."""

from typing import Annotated

import typer

from clipper.api.schemas import Model, Version
from clipper.cli.names import ModelName
from clipper.cli.options import AsJson, Home, OfVersion, Url, confirm, parse_replicas
from clipper.cli.output import Output
from clipper.client import Clipper

commands = typer.Typer(no_args_is_help=True, help="Models and their versions.")

_COLUMNS = (
    "version", "current", "state", "replicas", "scaling", "batch limit", "batching", "takes", "runtime",
)  # fmt: skip

# New replicas load the model again. The deployment's own time-out, of an hour at most, also bounds that.
_SCALE_TIMEOUT_S = 600.0


@commands.command("list")
def list_all(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the models."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.models()
    columns = ("name", "current", "state", "replicas ready", "previous", "versions")
    Output(as_json).table(
        found, columns, [_model_row(one) for one in found], "no models; next: clipper deploy NAME MODEL"
    )


@commands.command()
def show(name: ModelName, home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Show a model's versions, with their replicas' states, batch limits and last errors."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.model(name)
    out = Output(as_json)
    out.table(found, _COLUMNS, [_row(version) for version in found.versions], f"{name} has no versions")
    for version in found.versions:
        if version.description:
            out.note(f"version {version.version}: {version.description}")
        if version.warning:
            out.note(f"warning: version {version.version}: {version.warning}")
        if version.stopped:
            out.note(f"version {version.version} was stopped: {version.stopped}")
        for error in _errors(version):
            out.note(f"version {version.version}: {error}")


@commands.command()
def rollback(
    name: ModelName,
    to: Annotated[str | None, typer.Option("--to", "--version", help="The version to make current.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, even if the version was stopped.")] = False,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make the previous version, or --to, current. Asks first if a guardrail stopped that version."""
    out = Output(as_json)
    with Clipper.connect(url, home) as clipper:
        allow_stopped = to is not None and _confirms(clipper.version(name, to), out, yes=yes)
        with out.progress(f"rolling {name} back"):
            now = clipper.rollback(name, to, allow_stopped=allow_stopped)
    step = f"next: clipper model rollback {name} goes back to {now.previous}" if now.previous else ""
    out.done(now, f"{name}:{now.current} is current: queries go to it", step)


@commands.command()
def scale(
    name: ModelName,
    replicas: Annotated[
        str, typer.Argument(help="How many processes run it; a range, e.g. 1..4, lets the load decide.")
    ],
    version: OfVersion = None,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Set the number of replicas of the current version, or of --version, or a range in which the load decides."""
    out, wanted = Output(as_json), parse_replicas(replicas)
    with Clipper.connect(url, home) as clipper, out.progress(f"scaling {name}") as progress:
        told = clipper.scale(name, wanted, version)
        now = clipper.wait_until_ready(name, told.version, _SCALE_TIMEOUT_S, progress)
    has = f"{name}:{now.version} has {now.replicas_wanted} replicas ready"
    if now.scaling:
        out.done(now, f"{has}; its load decides, within {now.scaling}", f"next: clipper model show {name} says why")
    else:
        out.done(now, has, "next: clipper replica list")


@commands.command()
def delete(
    name: ModelName, version: OfVersion = None, home: Home = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Remove a model with all its versions, or only --version."""
    out = Output(as_json)
    what = f"{name}:{version}" if version else name
    with Clipper.connect(url, home) as clipper, out.progress(f"removing {what}"):
        clipper.delete_model(name, version)
    out.done({"deleted": what}, f"{what} is removed", "next: clipper model list")


def _confirms(version: Version, out: Output, *, yes: bool) -> bool:
    """Warn of a version that was stopped or has failed. Return whether it was stopped and is to answer nevertheless.

    Raises:
        Conflict: nobody can be asked.
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


def _scaling(version: Version) -> str:
    if version.scaling is None:
        return ""
    return f"{version.scaling}: {version.scaling_reason}" if version.scaling_reason else str(version.scaling)


def _model_row(model: Model) -> tuple[object, ...]:
    """With the state and the replicas of the version that queries go to."""
    current = next((version for version in model.versions if version.current), None)
    state = None if current is None else current.condition or current.state
    ready = None if current is None else f"{current.ready_replicas}/{current.replicas_wanted}"
    return model.name, model.current, state, ready, model.previous, len(model.versions)


def _row(version: Version) -> tuple[object, ...]:
    limits = [replica.batch_limit for replica in version.replicas if replica.batch_limit is not None]
    return (
        version.version,
        "yes" if version.current else "",
        version.condition or version.state,
        f"{version.ready_replicas}/{version.replicas_wanted}",
        _scaling(version),
        ", ".join(map(str, limits)),
        version.batching.policy,
        version.input_type,
        version.runtime,
    )


def _errors(version: Version) -> list[str]:
    """Why it or its replicas do not run: each cause once."""
    errors = [version.last_error, *(replica.last_error for replica in version.replicas)]
    return list(dict.fromkeys(error for error in errors if error))
