"""``clipper app``: applications and their links to models."""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from msgspec import UNSET

from clipper.api.learned import Newcomer, Watched
from clipper.api.recent import LastMinute
from clipper.api.schemas import Application
from clipper.cli.commands import calibration
from clipper.cli.commands.report_summary import (
    explanations,
    name_of,
    of_last_minute,
    of_test,
    read_context,
    shown_context,
)
from clipper.cli.names import ApplicationName, OfVersion, complete_models
from clipper.cli.options import (
    LossParameters,
    PolicyParameters,
    Yes,
    confirm,
    number,
    parse_parameters,
    parser,
    shown_time,
)
from clipper.cli.output import shown_type
from clipper.cli.server import Commands, Server
from clipper.cli.settings import SUBJECT_OF, Given, options_of, with_settings
from clipper.control.descriptions import EndedRamp, ModelDescription
from clipper.errors import Conflict
from clipper.settings.application import ApplicationSettings, Configured, Cost, Link, NewApplication
from clipper.settings.fields import settings_of
from clipper.settings.pipeline import Step, Wiring
from clipper.settings.texts import read_cost

commands = Commands("Applications, which clients ask for predictions.")
contexts = Commands("The contexts in which an application has learned.")
commands.add_typer(contexts, name="contexts")
commands.command("calibration")(calibration.calibration)

LinkedName = Annotated[
    str,
    typer.Argument(
        help="The model's name, or NAME:VERSION for one of several versions.", autocompletion=complete_models
    ),
]

_parse_cost = parser(read_cost)

_COLUMNS = ("name", "input type", "slo ms", "policy", "models", "default")
# Columns without values for most applications: title, field of ``ModelDescription``, format.
_RARE_COLUMNS = (
    ("in time", "in_time", ".1%"),
    ("chance now", "chance", ".1%"),
    ("cost", "cost", "g"),
    ("goes on below", "threshold", "g"),
)
# Characters of the bar for a share of 1: wide enough to see 5 %.
_BAR_WIDTH = 20


@commands.command()
@with_settings(settings=options_of(NewApplication))
def create(
    server: Server,
    name: ApplicationName,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model to link; NAME:VERSION stays with a version. May be repeated.",
            metavar="NAME",
            autocompletion=complete_models,
        ),
    ] = None,
    version: OfVersion = None,
    shadow: Annotated[
        list[str] | None,
        typer.Option(
            help="A model that is asked and scored but never answers. May be repeated.",
            metavar="NAME",
            autocompletion=complete_models,
        ),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COST",
            help="Cost of asking a model once, in any unit, e.g. forest=5. auto measures the cost of the other models, "
            "in milliseconds of a replica. May be repeated.",
        ),
    ] = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(
            help="Experimental: a file with the steps and all settings of a pipeline, as an application of "
            "clipper.yaml has them.",
            metavar="FILE",
            readable=False,
        ),
    ] = None,
    settings: Given,
    policy_parameter: PolicyParameters = None,
    loss_parameter: LossParameters = None,
) -> None:
    """Create an application. It follows its models' current versions, or stays with --version of its only model."""
    if pipeline is not None:
        if model or version or shadow or cost:
            raise typer.BadParameter("goes without --model, --version, --shadow and --cost", param_hint="--pipeline")
        _create_pipeline(server, name, pipeline)
        return
    if version is not None and len(model or ()) != 1:
        raise typer.BadParameter("--version goes with one --model; with several models, write --model NAME:VERSION")
    costs = _costs(cost, (*(model or ()), *(shadow or ())))
    settings |= {
        "policy_parameters": parse_parameters(policy_parameter),
        "loss_parameters": parse_parameters(loss_parameter),
    }
    with server.out.progress(f"creating {name}"):
        made = server.clipper.create_application(
            name,
            model=model[0] if version and model else model,
            version=version,
            shadow=shadow or (),
            cost=costs,
            **settings,
        )
    step = f"next: clipper predict {name} INPUT" if made.links else f"next: clipper app link {name} MODEL"
    server.out.done(
        made, f"application {name} takes {shown_type(made.input_type)} and answers within {made.slo_ms:g} ms", step
    )


def _create_pipeline(server: Server, name: str, file: Path) -> None:
    # Imported here, so that no other command loads its libraries.
    from clipper.cli.commands.manifest_file import ManifestFile

    wanted = ManifestFile(file, name)
    if any(app.name == name for app in server.clipper.applications()):
        raise Conflict(f"application {name!r} exists already: change it with clipper apply, or delete it first")
    result = wanted.apply(server.clipper, server.out)
    server.out.done(result.as_json, result.text, f"next: clipper predict {name} INPUT" if result.is_done else "")
    if not result.is_done:
        raise typer.Exit(1)


@commands.command("list")
def list_all(server: Server) -> None:
    """List the applications."""
    found = server.clipper.applications()
    rows = [(*_row(app), None if app.last_minute is None else of_last_minute(app.last_minute)) for app in found]
    server.out.table(
        found, (*_COLUMNS, "last minute"), rows, "no applications; next: clipper app create NAME --model MODEL"
    )


@commands.command()
def show(server: Server, name: ApplicationName) -> None:
    """Show an application: its models, how it selects among them, and its policy's last problem."""
    found = server.clipper.application(name)
    recent = {app.name: app.last_minute for app in server.clipper.applications()} if found.steps else {}
    steps = _steps(found, recent)
    server.out.sections(
        found, {"": list(zip(_COLUMNS, _row(found))), "Now": _state(found), "Steps": steps, **_settings(found)}
    )


@commands.command()
def policy(
    server: Server,
    name: ApplicationName,
    context: Annotated[
        str | None, typer.Option(help="A user, session or other group; all contexts if left out.")
    ] = None,
) -> None:
    """Show what an application's policy has learned, and the share of each model now."""
    context = context and read_context(context)
    found = server.clipper.policy(name, context)
    out = server.out
    rare = [one for one in _RARE_COLUMNS if any(getattr(model, one[1]) is not None for model in found.models)]
    columns = ["model", "chosen now", "", "mean loss", "pulls", "scored", *(title for title, _, _ in rare)]
    out.table(found, columns, [_learned_row(model, rare) for model in found.models], "no models")
    where = "over all contexts" if context is None else f"in context {shown_context(context)}"
    chosen = _configured(Configured(found.policy, found.parameters))
    out.note(
        f"policy {chosen}, loss {found.loss}, {where}, from {found.observations:.0f} observations that still count"
    )
    if found.mean_cost is not None:
        out.note(f"at today's costs a query has cost {found.mean_cost:.4g} on average since the workers started")
    out.note(*found.prices)
    for stage, share in enumerate(found.stages, 2):
        out.note(f"{share:.1%} of queries have gone on to stage {stage}")
    out.note(*map(calibration.summary, found.calibration))
    if found.test is not None:
        out.note(of_test(found.test))
    if found.problem:
        out.note(f"problem: {found.problem}")


@commands.command()
@with_settings(settings=options_of(ApplicationSettings, to_change=True))
def update(
    server: Server,
    name: ApplicationName,
    *,
    settings: Given,
    policy_parameter: PolicyParameters = None,
    loss_parameter: LossParameters = None,
) -> None:
    """Change an application while it serves. Omitted options stay, and so does its learned state."""
    for kind, texts in (("policy", policy_parameter), ("loss", loss_parameter)):
        if texts and kind not in settings:
            raise typer.BadParameter(f"--{kind}-parameter goes with --{kind}")
        if texts:
            settings[f"{kind}_parameters"] = parse_parameters(texts)
    if not settings:
        raise typer.BadParameter("nothing to change: give --slo-ms, --default, --policy or another option")
    before = server.clipper.application(name)
    changed = server.clipper.change_application(name, **settings)
    was, now = (
        {**dict(zip(_COLUMNS, _row(one))), **dict(chain(*_settings(one).values()))} for one in (before, changed)
    )
    rows = [(what, was[what], value) for what, value in now.items() if value != was[what]]
    server.out.table(changed, ("what", "was", "is"), rows, f"{name} has these settings already: nothing is changed")


@commands.command()
def delete(server: Server, name: ApplicationName, yes: Yes = False) -> None:
    """Remove an application, with all that it has learned. Its models stay. Asks first."""
    count = server.clipper.contexts(name, 1).count
    learned = "what it has learned" + (f", also in {count} contexts" if count else "")
    confirm(
        f"Remove application {name}, and forget {learned}?",
        f"removing application {name} would forget {learned}: add --yes if that is meant",
        yes=yes,
    )
    server.clipper.delete_application(name)
    server.out.done(
        {"deleted": name},
        f"application {name} is removed; its models stay, and so do the applications of a pipeline's steps",
        "next: clipper model list",
    )


@commands.command()
@with_settings(settings=options_of(Link, only=("shadow", "cost")))
def link(
    server: Server,
    name: ApplicationName,
    model: LinkedName,
    version: OfVersion = None,
    *,
    settings: Given,
) -> None:
    """Link a model. The link follows the current version, or stays with --version.

    NAME:VERSION is linked beside other versions of the model.
    """
    changed = server.clipper.link(name, model, version, **settings)
    version = version or model.partition(":")[2]
    target = f"{model.partition(':')[0]}:{version}" if version else f"{model}, whichever version is current"
    at = settings.get("cost")
    how = ", as a shadow" if "shadow" in settings else ""
    how += "" if at is None else f", at a cost of {at if at == 'auto' else format(at, 'g')}"
    for one in changed.newcomers:
        if one.model == model.partition(":")[0] and version in (None, "", one.version) and one.stopped is None:
            how += f", for {one.share:.1%} of its queries until feedback has shown its worth: clipper app show {name}"
    server.out.done(changed, f"application {name} asks {target}{how}", f"next: clipper predict {name} INPUT")


@commands.command()
def unlink(server: Server, name: ApplicationName, model: LinkedName) -> None:
    """Unlink a model."""
    changed = server.clipper.unlink(name, model)
    server.out.done(changed, f"application {name} no longer asks {model}", f"next: clipper app link {name} MODEL")


def _row(app: Application) -> tuple[object, ...]:
    links = ", ".join(map(str, app.links))
    default = None if app.default_output is UNSET else json.dumps(app.default_output)
    return (app.name, shown_type(app.input_type), f"{app.slo_ms:g}", _configured(app.policy), links, default)


_IN_COLUMNS = frozenset({"slo_ms", "default_output", "policy", "steps", "output"})


def _settings(app: Application) -> dict[str, list[tuple[str, object]]]:
    """Return the settings that ``_COLUMNS`` lacks by their subjects, each by the name of its option."""
    found: dict[str, list[tuple[str, object]]] = {}
    for one in settings_of(ApplicationSettings):
        if one.name not in _IN_COLUMNS:
            value = getattr(app, one.name)
            text = _configured(value) if isinstance(value, Configured) else _setting_text(value)
            found.setdefault(SUBJECT_OF[one.keyword], []).append((one.flag.lstrip("-").replace("-", " "), text))
    return found


def _state(app: Application) -> list[tuple[str, object]]:
    recent = app.last_minute
    rows: list[tuple[str, object]] = [
        ("last minute", None if recent is None else of_last_minute(recent)),
        *(() if recent is None else (("", text) for text in explanations(recent))),
        ("test", None if app.test is None else of_test(app.test)),
        ("policy problem", app.problem),
        *((f"newcomer {one.model}:{one.version}", _newcomer_text(one)) for one in app.newcomers),
        *((f"watched {one.model}:{one.version}", _watched_text(one)) for one in app.watched),
        *((f"ramp of {one.model}:{one.version}", _ended_text(one)) for one in app.ended_ramps),
    ]
    return [row for row in rows if row[1] is not None]


def _steps(app: Application, recent: Mapping[str, LastMinute | None]) -> list[tuple[str, object]]:
    """Return a row for each step of a pipeline. ``recent``: what applications have answered in the last minute."""
    output = [("output", _wired(app.output or list(app.steps)[-1]))] if app.steps else []
    return [*((name, _step_text(app.name, name, step, recent)) for name, step in app.steps.items()), *output]


def _step_text(pipeline: str, name: str, step: Step, recent: Mapping[str, LastMinute | None]) -> str:
    asked = step.application or f"{pipeline}.{name}"
    text = f"asks {asked} with {_wired(step.input)}"
    if step.for_each is not None:
        text += f", for each of {step.for_each} ({step.at_most} at most)"
    text += "" if step.when is None else f", when {step.when}"
    last_minute = recent.get(asked)
    return text if last_minute is None else f"{text}; in the last minute {of_last_minute(last_minute)}"


def _wired(wiring: Wiring) -> str:
    return wiring if isinstance(wiring, str) else ", ".join(f"{name}: {value}" for name, value in wiring.items())


def _setting_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _newcomer_text(one: Newcomer) -> str:
    if one.stopped is not None:
        return f"stopped: {one.stopped}"
    beside = "the others" if one.before is None else f"{one.model}:{one.before}"
    told = f"{one.feedback} of {one.enough_feedback} answers with feedback"
    # It has enough feedback, but was not let through.
    waits = "; it waits, since it may lose more than is allowed" if one.feedback >= one.enough_feedback else ""
    return f"{one.share:.2%} of the queries, beside {beside}; {told}{_losses(one)}{waits}"


def _ended_text(one: EndedRamp) -> str:
    since = f"ended {shown_time(one.ended_at)}, since then the policy decides its share"
    return f"{since}; {one.feedback} answers with feedback{_losses(one)}"


def _watched_text(one: Watched) -> str:
    text = f"{one.answers} of {one.enough_answers} answers"
    if one.before is not None:
        text += f", after {one.model}:{one.before}"
    if one.compared:
        text += f"; {one.failed} of {one.compared} that are compared failed or were late"
        text += f", {one.rest_failed} of {one.rest_compared} others"
    return text if one.last_error is None else f"{text}; its last error: {one.last_error}"


def _losses(one: Newcomer | EndedRamp) -> str:
    if one.mean_loss is None or one.rest_mean_loss is None:
        return ""
    compared = "which" if one.compared is None else f"of which {one.compared}, where the policy would ask it,"
    return f", {compared} lost {one.mean_loss:.3f} on average, the others {one.rest_mean_loss:.3f}"


def _costs(texts: list[str] | None, models: Sequence[str]) -> dict[str, Cost]:
    """Read texts such as ``forest=5`` into costs by name; ``auto`` is for all models without a cost."""
    costs: dict[str, Cost] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if text == "auto":
            costs = {**dict.fromkeys(models, "auto"), **costs}
        elif name and equals:
            costs[name] = _parse_cost(value)
        else:
            raise typer.BadParameter(
                f"{text!r} is not a cost: expected MODEL=NUMBER, e.g. forest=5, MODEL=auto or auto"
            )
    return costs


def _configured(chosen: Configured) -> str:
    """Write a policy or loss as text, e.g. ``exp3 eta=0.05``."""
    return " ".join([chosen.name, *(f"{name}={json.dumps(value)}" for name, value in chosen.parameters.items())])


def _learned_row(model: ModelDescription, rare: Sequence[tuple[str, str, str]]) -> tuple[object, ...]:
    name = name_of(model) + (" (shadow)" if model.shadow else "")
    loss = None if model.mean_loss is None else f"{model.mean_loss:.3f}"
    bar = "█" * round(model.share * _BAR_WIDTH)
    more = (None if (value := getattr(model, field)) is None else format(value, form) for _, field, form in rare)
    return (name, f"{model.share:.1%}", bar, loss, f"{model.pulls:.1f}", f"{model.scored:.1f}", *more)


@contexts.command("list")
def list_contexts(
    server: Server,
    name: ApplicationName,
    limit: Annotated[int, number(int, help="The most contexts to list.", least=1, most=10_000)] = 100,
) -> None:
    """List contexts, those with the latest feedback first."""
    found = server.clipper.contexts(name, limit)
    out = server.out
    out.table(
        found,
        ("context",),
        [(shown_context(context),) for context in found.contexts],
        f"{name} has not learned in any context",
    )
    if found.count > len(found.contexts):
        out.note(f"{len(found.contexts)} of {found.count}; --limit shows more")


@contexts.command("delete")
def delete_context(
    server: Server,
    name: ApplicationName,
    context: Annotated[str, typer.Argument(help="The context, such as a user's id.")],
) -> None:
    """Forget what an application has learned in one context. Knowledge shared by all contexts stays."""
    server.clipper.delete_context(name, read_context(context))
    server.out.done(
        {"deleted": context}, f"{name} has forgotten context {context}", f"next: clipper app contexts list {name}"
    )
