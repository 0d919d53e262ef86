"""Asks before a command does what cannot be undone."""

import sys
from typing import Annotated

import typer

from clipper.errors import Conflict

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def confirm(question: str, unasked: str, *, yes: bool) -> None:
    """Ask on a terminal whether to go on, and end the command if the answer is no.

    Args:
        question: what to ask.
        unasked: what the error says where nobody can be asked; it tells to add ``--yes``.
        yes: the command's ``--yes``.

    Raises:
        Conflict: standard input is no terminal, so that nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Conflict(unasked)
    typer.confirm(question, abort=True)
