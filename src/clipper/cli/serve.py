"""``clipper serve``: a server, a model and an application in one foreground command."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from clipper.cli.examples import curl_line
from clipper.cli.options import AsJson, DataPath, FrameworkName, Home, RequirementsPath
from clipper.cli.output import Output
from clipper.cli.process import ServerStart, StartingServer, checked_start, settled, spawn
from clipper.cli.settings import Given, options_of, with_settings
from clipper.client import Clipper
from clipper.errors import Conflict, InvalidArgument, NotFound
from clipper.home import CERTIFICATE_NAME, find_home, read_token
from clipper.management.schemas import Application, Version
from clipper.packaging import package
from clipper.settings.application import ApplicationSettings, Link
from clipper.settings.server import ServerSettings
from clipper.settings.version import Deployment
from clipper.types import check_name

_WATCH_S = 0.2


@with_settings(
    application=options_of(ApplicationSettings, only=("slo_ms", "default_output")),
    deployment=options_of(Deployment, without=("version", "make_current")),
    server=options_of(ServerSettings, panel="The server"),
)
def serve(
    model: Annotated[str, typer.Argument(help="A model file or folder, or module:attribute with its code here.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model and the application.", show_default="from the model's file or module"),
    ] = None,
    *,
    application: Given,
    deployment: Given,
    requirements: RequirementsPath = None,
    data: DataPath = None,
    framework: FrameworkName = None,
    home: Home = None,
    server: Given,
    as_json: AsJson = False,
) -> None:
    """Start a server, deploy a model and create its application, in the foreground. ^C drains and stops."""
    out, start = Output(as_json), checked_start(find_home(home), server)
    chosen = _checked(name or name_of(model))
    if now := settled(start.home):
        raise Conflict(
            f"Clipper is running already at {now.management_url}: clipper deploy {chosen} {model} adds the model "
            "to it; or give another --home and ports"
        )
    # The model is packed before the server starts, so that a wrong file name costs no start.
    packed = package(model, data=data, framework=framework, requirements=requirements)
    with packed as artifact, _server(out, start) as process:
        with out.progress("starting the server") as progress:
            process.wait_until_ready()
            with Clipper.connect(home=start.home, token=read_token(start.home)) as clipper:
                version = clipper.deploy(chosen, artifact, progress=progress, **deployment)
                asked = _application(clipper, chosen, application)
        if version.warning:
            out.warn(version.warning)
        shown = start.home / CERTIFICATE_NAME if "tls_cert" in server else None
        _print_served(out, clipper.query_url, version, asked, shown, needs_key="api_keys" in server)
        while True:  # until ^C, or until the server ends on its own, which is an error
            process.check_alive("while it served")
            time.sleep(_WATCH_S)


def _checked(name: str) -> str:
    try:
        return check_name("model", name)
    except InvalidArgument as error:
        raise typer.BadParameter(str(error), param_hint="--name") from error


@contextmanager
def _server(out: Output, start: ServerStart) -> Iterator[StartingServer]:
    """A server that is drained and stopped when ^C, SIGTERM or an error ends the block."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = spawn(start)
    try:
        yield server
    except KeyboardInterrupt:
        pass
    finally:
        with out.progress("draining"):
            server.stop()


def _print_served(
    out: Output,
    query_url: str,
    version: Version,
    application: Application,
    certificate: Path | None,
    *,
    needs_key: bool,
) -> None:
    name = application.name
    result = {"query_url": f"{query_url}/{name}/predict", "version": version, "application": application}
    curl = curl_line(query_url, name, application.input_type, certificate)
    if needs_key or application.require_key:
        curl = f'export CLIPPER_API_KEY=$(clipper key create me)\n  {curl} -H "Authorization: Bearer $CLIPPER_API_KEY"'
    text = f"{name}:{version.version} is served within {application.slo_ms:g} ms; try:\n\n  {curl}\n"
    out.done(result, text, "^C drains and stops")


def name_of(model: str) -> str:
    """Make a valid name from a file's stem or a module's last part: ``My Model.joblib`` gives ``my-model``."""
    stem = model.split(":")[0].rsplit(".", 1)[-1] if ":" in model else Path(model).stem
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63].rstrip("-._") or "model"


def _application(clipper: Clipper, name: str, settings: Given) -> Application:
    """Create the application of that name, or change it to the given settings."""
    try:
        found = clipper.application(name)
    except NotFound:
        return clipper.create_application(name, model=name, **settings)
    if Link(name) not in found.links:
        clipper.link(name, name)
    return clipper.change_application(name, **settings)
