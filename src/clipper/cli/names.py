"""Names of a server's models, versions, applications and replicas. A shell completes them from the server."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from clipper.client import Clipper
from clipper.errors import ClipperError

# Completion gives up after this time. A server on this machine answers in milliseconds.
ANSWER_WITHIN_S = 2.0


def _completion(
    names_of: Callable[[Clipper, Mapping[str, Any]], Iterable[str]],
) -> Callable[[typer.Context, str], list[str]]:
    """Complete a name from the server that the command line names so far. Without a server there are no names.

    ``names_of`` gets the command's arguments and options so far, too.
    """

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        found: list[str] = []

        def ask() -> None:
            try:
                with Clipper.connect(context.params.get("url"), context.params.get("home")) as clipper:
                    found.extend(name for name in names_of(clipper, context.params) if name.startswith(incomplete))
            except (ClipperError, OSError):
                pass  # a shell has no place for errors

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER_WITHIN_S)
        return list(found)

    return complete


def _versions(clipper: Clipper, given: Mapping[str, Any]) -> Iterable[str]:
    model = given.get("model") or given.get("name") or ""
    name = model if isinstance(model, str) else model[0]
    return [version.version for version in clipper.model(name.partition(":")[0]).versions]


complete_models = _completion(lambda clipper, _: [model.name for model in clipper.models()])
complete_applications = _completion(lambda clipper, _: [application.name for application in clipper.applications()])
_complete_replicas = _completion(lambda clipper, _: [replica.id for replica in clipper.replicas()])

ApplicationName = Annotated[str, typer.Argument(help="The application's name.", autocompletion=complete_applications)]
ModelName = Annotated[str, typer.Argument(help="The model's name.", autocompletion=complete_models)]
NameAndVersion = Annotated[
    str, typer.Argument(help="The model's name, or NAME:VERSION.", metavar="NAME", autocompletion=complete_models)
]
OfVersion = Annotated[
    str | None, typer.Option("--version", help="A version of the model.", autocompletion=_completion(_versions))
]
ReplicaId = Annotated[
    str,
    typer.Argument(help="The replica's id, e.g. digits:2#1.", metavar="ID", autocompletion=_complete_replicas),
]


def model_and_version(name: str, version: str | None, option: str = "--version") -> tuple[str, str | None]:
    """Read a name like ``digits:2``, or a name and an option. Raises typer.BadParameter for two versions."""
    model, _, named = name.partition(":")
    if named and version not in (None, named):
        raise typer.BadParameter(f"{name} names a version already: leave out {option}", param_hint=option)
    return model, named or version
