"""``clipper app``: applications and their links to models."""

import json
from typing import Annotated

import typer
from msgspec import UNSET

from clipper.cli.options import AsJson, Default, Home, InputTypeText, OfVersion, SloMs, Url, parse_json
from clipper.cli.output import Output
from clipper.client import Clipper
from clipper.management.schemas import Application

commands = typer.Typer(no_args_is_help=True, help="Applications: what asks for predictions.")

Name = Annotated[str, typer.Argument(help="The application's name.")]
ModelName = Annotated[str, typer.Argument(help="The model's name.")]

_COLUMNS = ("name", "input type", "slo ms", "policy", "models", "default")


@commands.command()
def create(
    name: Name,
    model: Annotated[str | None, typer.Option(help="The model to link.")] = None,
    version: OfVersion = None,
    slo_ms: SloMs = 100.0,
    default: Default = None,
    input_type: InputTypeText = None,
    policy: Annotated[str, typer.Option(help="Which of its models answers.")] = "single",
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Create an application. It follows its model's current version, or --version for good."""
    if version is not None and model is None:
        raise typer.BadParameter("--version goes with --model")
    out = Output(as_json)
    default_output = UNSET if default is None else parse_json(default)
    with Clipper.connect(url, home) as clipper, out.progress(f"creating {name}"):
        made = clipper.create_application(
            name,
            model=model,
            version=version,
            slo_ms=slo_ms,
            default_output=default_output,
            input_type=input_type,
            policy=policy,
        )
    step = f"next: clipper predict {name} INPUT" if made.links else f"next: clipper app link {name} MODEL"
    out.done(made, f"application {name} takes {made.input_type}, within {made.slo_ms:g} ms", step)


@commands.command("list")
def list_all(home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """List the applications."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.applications()
    Output(as_json).table(
        found, _COLUMNS, [_row(app) for app in found], "no applications; next: clipper app create NAME --model MODEL"
    )


@commands.command()
def show(name: Name, home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Show an application."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.application(name)
    Output(as_json).table(found, _COLUMNS, [_row(found)], "")


@commands.command()
def update(
    name: Name,
    slo_ms: Annotated[float | None, typer.Option(help="The new objective in milliseconds.", min=0.1)] = None,
    default: Default = None,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Change an application's objective or default output."""
    if slo_ms is None and default is None:
        raise typer.BadParameter("nothing to change: give --slo-ms or --default")
    with Clipper.connect(url, home) as clipper:
        changed = clipper.change_application(
            name,
            slo_ms=UNSET if slo_ms is None else slo_ms,
            default_output=UNSET if default is None else parse_json(default),
        )
    Output(as_json).table(changed, _COLUMNS, [_row(changed)], "")


@commands.command()
def delete(name: Name, home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Remove an application. Its models stay."""
    with Clipper.connect(url, home) as clipper:
        clipper.delete_application(name)
    Output(as_json).done(
        {"deleted": name}, f"application {name} is removed; its models stay", "next: clipper model list"
    )


@commands.command()
def link(
    name: Name, model: ModelName, version: OfVersion = None, home: Home = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Link a model. It follows the current version, or --version for good."""
    with Clipper.connect(url, home) as clipper:
        changed = clipper.link(name, model, version)
    target = f"{model}:{version}" if version else f"{model}, whichever version is current"
    Output(as_json).done(changed, f"application {name} asks {target}", f"next: clipper predict {name} INPUT")


@commands.command()
def unlink(name: Name, model: ModelName, home: Home = None, url: Url = None, as_json: AsJson = False) -> None:
    """Unlink a model."""
    with Clipper.connect(url, home) as clipper:
        changed = clipper.unlink(name, model)
    Output(as_json).done(changed, f"application {name} no longer asks {model}", f"next: clipper app link {name} MODEL")


def _row(app: Application) -> tuple[object, ...]:
    links = ", ".join(link.model + (f":{link.version}" if link.version else "") for link in app.links)
    default = None if app.default_output is UNSET else json.dumps(app.default_output)
    return (app.name, app.input_type, f"{app.slo_ms:g}", app.policy, links, default)
