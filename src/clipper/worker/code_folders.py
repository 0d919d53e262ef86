"""Where a worker finds the code of users' own policies that a snapshot names."""

from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from clipper.control.difference import Difference
from clipper.control.snapshot import ApplicationSnapshot, Snapshot

Told = TypeVar("Told", Snapshot, Difference)


def located(told: Told, artifacts: str) -> Told:
    """The same with whole paths of users' own code. On nodes, which may keep artifacts in different places, a snapshot
    has these paths below the folder of artifacts. ``artifacts``: that folder; empty if the snapshot has whole paths."""
    if not artifacts or all(one.selection.code is None for one in told.applications):
        return told
    return replace(told, applications=tuple(_located(one, artifacts) for one in told.applications))


def _located(application: ApplicationSnapshot, artifacts: str) -> ApplicationSnapshot:
    selection = application.selection
    if selection.code is None:
        return application
    return replace(application, selection=replace(selection, code=str(Path(artifacts) / selection.code)))
