"""``clipper deploy``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clipper.cli.options import (
    AsJson,
    DataPath,
    FrameworkName,
    Home,
    InputTypeText,
    OutputNames,
    PythonPath,
    RequirementsPath,
    Url,
    one_of,
    parse_json,
    parse_replicas,
    parse_size,
)
from clipper.cli.output import Output
from clipper.client import Clipper
from clipper.control.snapshot import BatchingPolicy
from clipper.management.schemas import ManagerName, Version
from clipper.packaging import Language


def deploy(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    model: Annotated[
        str | None, typer.Argument(help="A model file or folder, module:attribute with its code here, or a program.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="The version's name.", show_default="the next number")] = None,
    replicas: Annotated[
        str, typer.Option(help="How many processes run it, or e.g. 1..4: as its load needs.", metavar="N|MIN..MAX")
    ] = "1",
    batching: Annotated[BatchingPolicy, one_of(BatchingPolicy, help="Who decides how large batches are.")] = "goodput",
    max_batch: Annotated[int, typer.Option(help="The largest batch; under fixed, the size.", min=1)] = 1024,
    batch_delay_ms: Annotated[float, typer.Option(help="How long a batch may wait to fill.", min=0)] = 0.0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="The model is no function: ask it every time.")] = False,
    keep_current: Annotated[
        bool, typer.Option("--keep-current", help="Leave queries with the current version.")
    ] = False,
    input_type: InputTypeText = None,
    python: PythonPath = None,
    requirements: RequirementsPath = None,
    data: DataPath = None,
    language: Annotated[
        Language, one_of(Language, help="binary: MODEL is a program or jar that speaks the container protocol.")
    ] = "python",
    manager: Annotated[
        ManagerName, one_of(ManagerName, help="docker: each replica runs in a container of an image built for it.")
    ] = "local",
    image: Annotated[
        str | None,
        typer.Option(help="In place of MODEL: a Docker image whose program speaks the protocol.", metavar="NAME"),
    ] = None,
    framework: FrameworkName = None,
    output: OutputNames = None,
    memory: Annotated[
        int | None, typer.Option(help="Bound of each replica's memory, e.g. 2g.", parser=parse_size, metavar="SIZE")
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(help="How many processors each replica may use.", min=0.01, show_default="any")
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="GPUs that each replica may use: how many, all, or ids such as 0,1.", metavar="GPUS"),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(help="An input, as JSON or @FILE, that it has to answer before it is ready.", metavar="JSON"),
    ] = None,
    start_timeout: Annotated[float, typer.Option(help="Seconds that it may take to load.", min=1, max=3600)] = 60.0,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Deploy a version of a model, and wait until it serves."""
    out, sample_input, wanted = Output(as_json), _read_sample(sample), parse_replicas(replicas)
    if (model is None) == (image is None):
        raise typer.BadParameter("expected MODEL or --image, one of them")
    with Clipper.connect(url, home) as clipper, out.progress("deploying") as progress:
        made = clipper.deploy(
            name,
            image or model,
            version=version,
            replicas=wanted,
            input_type=input_type,
            batching=batching,
            max_batch=max_batch,
            batch_delay_ms=batch_delay_ms,
            cache=not no_cache,
            make_current=not keep_current,
            python=python,
            requirements=requirements,
            data=data,
            language="image" if image else language,
            manager="docker" if image else manager,
            framework=framework,
            output=output,
            memory_bytes=memory,
            cpus=cpus,
            gpus=gpus,
            sample=sample_input,
            start_timeout_s=start_timeout,
            progress=progress,
        )
        applications = clipper.applications()
    linked = any(link.model == name for app in applications for link in app.links)
    ramped = {
        app.name: newcomer
        for app in applications
        for newcomer in app.newcomers
        if (newcomer.model, newcomer.version, newcomer.stopped) == (made.model, made.version, None)
    }
    if made.warning:
        out.warn(made.warning)
    for app, newcomer in ramped.items():
        out.note(
            f"{app} asks it {newcomer.share:.1%} of its queries until feedback tells enough: clipper app show {app}"
        )
    out.done(made, _told(made), _next_step(made, linked))


def _read_sample(text: str | None) -> Any:
    if text is None:
        return None
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{path} cannot be read: {error}", param_hint="--sample") from error
    return parse_json(text)


def _told(made: Version) -> str:
    place = "current" if made.current else "not current"
    replicas = f"{len(made.replicas)} replica{'s' * (len(made.replicas) != 1)}"
    if made.scaling:
        replicas += f" of {made.scaling}"
    return f"{made.model}:{made.version} is ready: {replicas}, takes {made.input_type}, {place}"


def _next_step(made: Version, linked: bool) -> str:
    if not made.current:
        return f"next: clipper model rollback {made.model} --version {made.version} sends queries to it"
    if not linked:
        return f"next: clipper app create {made.model} --model {made.model}"
    return f"next: clipper model show {made.model}; clipper model rollback {made.model} takes it back"
