"""Arguments that name a server's models, applications and replicas. A shell completes them from the server."""

import threading
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from clipper.client import Clipper
from clipper.errors import ClipperError

# A user who presses TAB waits no longer than this. A server on this machine answers in milliseconds.
ANSWER_WITHIN_S = 2.0


def _completion(names_of: Callable[[Clipper], Iterable[str]]) -> Callable[[typer.Context, str], list[str]]:
    """Complete a name from the server that the command line names so far. Without a server there are no names."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        found: list[str] = []

        def ask() -> None:
            try:
                with Clipper.connect(context.params.get("url"), context.params.get("home")) as clipper:
                    found.extend(name for name in names_of(clipper) if name.startswith(incomplete))
            except (ClipperError, OSError):
                pass  # a shell has no place for errors

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER_WITHIN_S)
        return list(found)

    return complete


complete_models = _completion(lambda clipper: [model.name for model in clipper.models()])
complete_applications = _completion(lambda clipper: [application.name for application in clipper.applications()])
_complete_replicas = _completion(lambda clipper: [replica.id for replica in clipper.replicas()])

ApplicationName = Annotated[str, typer.Argument(help="The application's name.", autocompletion=complete_applications)]
ModelName = Annotated[str, typer.Argument(help="The model's name.", autocompletion=complete_models)]
ReplicaId = Annotated[
    str,
    typer.Argument(help="The replica's id, e.g. digits:2#1.", metavar="ID", autocompletion=_complete_replicas),
]
