"""Reads a file for ``clipper apply``, compares it with a server and applies it; and writes the file of a server."""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from clipper.cli.manifest.document import MAX_BYTES, Fault, lines_of
from clipper.cli.manifest.export import exported
from clipper.cli.manifest.keys import SCHEMA
from clipper.cli.manifest.manifest import Manifest, read_manifest
from clipper.cli.manifest.plan import plan
from clipper.cli.manifest.steps import Plan
from clipper.cli.manifest_facts import ask_actual, pack_all, write_artifact
from clipper.cli.manifest_run import Outcome, Run
from clipper.cli.output import Output, reported
from clipper.client import Clipper
from clipper.errors import ContainerFailed, InvalidArgument

# Lines of a container that could not start: its log has more.
_LOG_LINES = 5
_STYLES = {"done": None, "failed": "red", "skipped": "yellow"}


class Result(NamedTuple):
    """The result of a plan. ``is_done``: whether the server is as the file says, or can be brought there."""

    is_done: bool
    text: str
    as_json: dict[str, Any]


class ManifestFile:
    """The file that was given to a command. ``-`` is standard input, whose paths are relative to the current folder.

    With ``pipeline`` the file has only the keys of an application of that name, which has steps.
    """

    def __init__(self, path: Path, pipeline: str | None = None) -> None:
        """Raise InvalidArgument if the file cannot be read or is not valid; the message has each fault's place."""
        self._path = path
        self._folder = Path.cwd() if str(path) == "-" else path.absolute().parent
        with reported(path, "read"):
            # Read one byte beyond the limit, so that a longer file is refused without being read whole.
            if str(path) == "-":
                content = sys.stdin.buffer.read(MAX_BYTES + 1)
            else:
                with path.open("rb") as source:
                    content = source.read(MAX_BYTES + 1)
        self._wanted, faults = read_manifest(content, self._folder, os.environ, pipeline)
        self._check(faults)

    @property
    def server(self) -> dict[str, Any]:
        return {name: value for name, value in (self._wanted.server or {}).items() if value is not None}

    @property
    def is_of_server_alone(self) -> bool:
        return self._wanted == Manifest(self._wanted.server)

    def apply(
        self, clipper: Clipper, out: Output, *, only_show: bool = False, diff: bool = False, prune: bool = False
    ) -> Result:
        """Make a plan, show it and, unless it is only to be shown, run it."""
        with out.progress("packing the models") as progress:
            packed, faults = pack_all(self._wanted, self._folder, clipper)
            self._check(faults)
            progress("comparing with the server")
            found = plan(self._wanted, packed, ask_actual(clipper), prune=prune)
        _show(found, out, diff=diff, prune=prune)
        if only_show:
            count = len(found.steps)
            text = f"nothing was done: {count} step{'s' * (count != 1)} to do" if count else "nothing to do"
            return Result(not found.obstacles, text, _json(found, []))
        outcomes: list[Outcome] = []
        with out.progress("applying") as progress:
            for outcome in Run(clipper, self._wanted, packed, self._folder).outcomes(found, progress):
                outcomes.append(outcome)
                _tell(outcome, out)
        counts = {status: sum(one.status == status for one in outcomes) for status in _STYLES}
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "nothing to do"
        return Result(counts["done"] == len(outcomes), f"{self._path}: {told}", _json(found, outcomes))

    def _check(self, faults: list[Fault]) -> None:
        if faults:
            lines = "\n".join(f"{self._path}:{line}" for line in lines_of(faults))
            raise InvalidArgument(f"{self._path} is not valid:\n{lines}")


def export_to(out: Output, clipper: Clipper, home: Path, artifacts: Path | None) -> None:
    """Write the file of a server to standard output, and its artifacts from ``home`` into the folder ``artifacts``."""
    found = exported(ask_actual(clipper))
    if artifacts is not None:
        with out.progress("writing artifacts") as progress:
            for sha256 in found.artifacts():
                progress(f"writing {sha256}")
                write_artifact(home, sha256, artifacts)
    out.done(found.document, found.text(str(SCHEMA)).rstrip("\n"))


def _show(found: Plan, out: Output, *, diff: bool, prune: bool) -> None:
    for step in found.steps:
        if diff:
            out.line(f"{step.subject}: {step.does}")
            for change in step.changes:
                out.line(f"  {change}")
        else:
            names = ", ".join(change.name for change in step.changes)
            out.line(f"{step.subject}: {step.does}" + (f" ({names})" if names else ""))
    for obstacle in found.obstacles:
        out.line(f"{obstacle.subject}: cannot be done: {obstacle.reason}", "red")
    if found.unnamed and not prune:
        out.note(f"not in the file, and stays: {', '.join(found.unnamed)}; --prune deletes it")


def _tell(outcome: Outcome, out: Output) -> None:
    out.line(f"{outcome.status}: {outcome.subject} {outcome.text}", _STYLES[outcome.status])
    if isinstance(outcome.error, ContainerFailed):
        for line in outcome.error.log_tail[-_LOG_LINES:]:
            out.line(f"  {line}")


def _json(found: Plan, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "plan": [
            {"subject": step.subject, "does": step.does, "changes": list(map(str, step.changes))}
            for step in found.steps
        ],
        "obstacles": [{"subject": one.subject, "reason": one.reason} for one in found.obstacles],
        "unnamed": list(found.unnamed),
        "outcomes": [{"subject": one.subject, "status": one.status, "text": one.text} for one in outcomes],
    }
