"""``clipper deploy``."""

from typing import Annotated

import typer

from clipper.api.schemas import Version
from clipper.cli.commands.follow import follow as follow_address
from clipper.cli.manifest.keys import SourceKeys
from clipper.cli.names import ModelName
from clipper.cli.options import EnvFiles, number, read_env_files
from clipper.cli.output import shown_type
from clipper.cli.server import Server
from clipper.cli.settings import Given, options_of, with_settings
from clipper.client.packaging.models import package
from clipper.settings.version import Deployment


@with_settings(
    settings=options_of(Deployment),
    source=options_of(SourceKeys, only=("requirements", "data", "language", "framework", "credentials")),
)
def deploy(
    server: Server,
    name: ModelName,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model file or folder, its address in a store, module:attribute of a file here, or a program."
        ),
    ] = None,
    *,
    settings: Given,
    source: Given,
    image: Annotated[
        str | None,
        typer.Option(help="A Docker image whose program speaks the protocol, instead of MODEL.", metavar="NAME"),
    ] = None,
    env_file: EnvFiles = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on: deploy again each time that the address means something else.")
    ] = False,
    every: Annotated[
        float, number(float, help="With --follow, how often to look at the address, in seconds.", least=1, most=86_400)
    ] = 60.0,
) -> None:
    """Deploy a version of a model, and wait until it serves."""
    out = server.out
    settings["env"] = read_env_files(env_file) | settings.get("env", {})
    if (model is None) == (image is None):
        raise typer.BadParameter("give either MODEL or --image")
    if follow:
        if model is None or "version" in settings:
            raise typer.BadParameter("--follow needs the address of a model, without --version: versions are numbered")
        follow_address(server, name, model, source, settings, every)
    if image is not None:
        source["language"], settings["manager"] = "image", "docker"
    with out.progress("deploying") as progress, package(image or model, **source, progress=progress) as artifact:
        made = server.clipper.deploy(name, artifact, **settings, progress=progress)
    out.warn(artifact.warning)
    report_deployed(server, made)


def report_deployed(server: Server, made: Version) -> None:
    out, applications = server.out, server.clipper.applications()
    linked = any(link.model == made.model for app in applications for link in app.links)
    ramped = {
        app.name: newcomer
        for app in applications
        for newcomer in app.newcomers
        if (newcomer.model, newcomer.version, newcomer.stopped) == (made.model, made.version, None)
    }
    out.warn(made.warning)
    for app, newcomer in ramped.items():
        out.note(
            f"{app} sends it {newcomer.share:.1%} of its queries until feedback shows its worth: clipper app show {app}"
        )
    out.done(made, _summary(made), _next_step(made, linked))


def _summary(made: Version) -> str:
    place = "current" if made.current else "not current"
    replicas = f"{len(made.replicas)} replica{'s' * (len(made.replicas) != 1)}"
    if made.scaling:
        replicas += f" of {made.scaling}"
    return f"{made.model}:{made.version} is ready: {replicas}, takes {shown_type(made.input_type or '')}, {place}"


def _next_step(made: Version, linked: bool) -> str:
    if not made.current:
        return f"next: clipper model rollback {made.model} --to {made.version} sends queries to it"
    if not linked:
        return f"next: clipper app create {made.model} --model {made.model}"
    return f"next: clipper model show {made.model}; clipper model rollback {made.model} undoes this"
