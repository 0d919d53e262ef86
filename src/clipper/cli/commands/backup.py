"""``clipper backup`` and ``restore``: a home in one file, and back. Both work on files, without the server."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from clipper.cli.options import AsJson, Home
from clipper.cli.output import Output
from clipper.settings.home import find_home
from clipper.supervisor.backup import back_up
from clipper.supervisor.backup import restore as put_back


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", readable=False)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write a server's models, applications, tokens, and what was learned to one file. The server may run."""
    out, place = Output(as_json), find_home(home)
    with out.progress("copying"):
        info = back_up(place, file.absolute())
    size_mb = file.stat().st_size / 1e6
    learned = "" if info.learned else "; without the learned state, which is not in the home"
    out.done(info, f"{place} is in {file}: {len(info.artifacts)} artifacts, {size_mb:.1f} MB{learned}")
    if info.missing:
        out.warn(
            f"{len(info.missing)} artifacts are missing in {place}, and thus in the backup: {', '.join(info.missing)}"
        )


def restore(
    file: Annotated[Path, typer.Argument(help="A file that clipper backup wrote.", readable=False)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Restore a home from a backup. Its server must be stopped; the replaced files are kept."""
    out, place = Output(as_json), find_home(home)
    with out.progress("restoring"):
        info, kept = put_back(place, file)
    at = datetime.fromtimestamp(info.at).astimezone().isoformat(" ", "seconds")
    replaced = "" if kept is None else f"; the previous files are in {kept}"
    out.done(
        info,
        f"{place} is restored to its state of {at}, written by Clipper {info.clipper}{replaced}",
        "next: clipper start",
    )
