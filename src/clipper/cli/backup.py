"""``clipper backup`` and ``restore``: a home in one file, and back. Both read and write files, and ask no server."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from clipper.backup import back_up
from clipper.backup import restore as put_back
from clipper.cli.options import AsJson, Home
from clipper.cli.output import Output
from clipper.home import find_home


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not be there yet.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write all that a server needs to one file: models, applications, tokens, and what was learned. It may run."""
    out, place = Output(as_json), find_home(home)
    with out.progress("copying"):
        info = back_up(place, file.absolute())
    size_mb = file.stat().st_size / 1e6
    learned = "" if info.learned else "; not what was learned, which is not in the home"
    out.done(info, f"{place} is in {file}: {len(info.artifacts)} artifacts, {size_mb:.1f} MB{learned}")
    if info.missing:
        out.warn(f"{len(info.missing)} artifacts are missing in {place}, and so here: {', '.join(info.missing)}")


def restore(
    file: Annotated[Path, typer.Argument(help="What clipper backup has written.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a home what it was when a backup was written. Its server must be stopped; what is replaced is kept."""
    out, place = Output(as_json), find_home(home)
    with out.progress("restoring"):
        info, kept = put_back(place, file)
    at = datetime.fromtimestamp(info.at).astimezone().isoformat(" ", "seconds")
    replaced = "" if kept is None else f"; what was there is in {kept}"
    out.done(info, f"{place} is what it was at {at}, by Clipper {info.clipper}{replaced}", "next: clipper start")
