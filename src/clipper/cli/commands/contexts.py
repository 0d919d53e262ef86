"""``clipper app contexts``: the contexts in which an application has learned."""

import json
from typing import Annotated

import typer

from clipper.cli.names import ApplicationName
from clipper.cli.options import AsJson, Home, Url, number
from clipper.cli.output import Output
from clipper.client import Clipper

commands = typer.Typer(no_args_is_help=True, help="The contexts in which an application has learned.")


@commands.command("list")
def list_contexts(
    name: ApplicationName,
    limit: Annotated[int, number(int, help="How many to list at most.", least=1, most=10_000)] = 100,
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List contexts, those with the latest feedback first."""
    with Clipper.connect(url, home) as clipper:
        found = clipper.contexts(name, limit)
    out = Output(as_json)
    out.table(
        found,
        ("context",),
        [(_shown(context),) for context in found.contexts],
        f"{name} has not learned in any context",
    )
    if found.count > len(found.contexts):
        out.note(f"{len(found.contexts)} of {found.count}; --limit shows more")


@commands.command()
def delete(
    name: ApplicationName,
    context: Annotated[str, typer.Argument(help="The context, such as a user's id.")],
    home: Home = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Forget what an application has learned in one context. What all contexts learned from it stays."""
    with Clipper.connect(url, home) as clipper:
        clipper.delete_context(name, context)
    Output(as_json).done(
        {"deleted": context}, f"{name} has forgotten context {context}", f"next: clipper app contexts list {name}"
    )


def _shown(context: str) -> str:
    """A context is any text that a client sent: quote it if it could control a terminal."""
    return context if context.isprintable() else json.dumps(context)
