"""``clipper apply`` and ``clipper export``."""

from pathlib import Path
from typing import Annotated

import typer

from clipper.cli.server import Server
from clipper.settings.home import find_home


def apply(
    server: Server,
    file: Annotated[Path, typer.Argument(help="The file; - is standard input.", metavar="FILE", readable=False)] = Path(
        "clipper.yaml"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show the old and new value of each setting, and do nothing.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run or --diff: exit 2 if there is something to do.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete objects that the file does not name, in the sections that it has.")
    ] = False,
) -> None:
    """Give the server the models, applications and keys of a file. Parts that already match the file stay untouched."""
    # Imported here, so that no other command loads its libraries.
    from clipper.cli.commands.manifest_file import ManifestFile

    if exit_code and not (dry_run or diff):
        raise typer.BadParameter("goes with --dry-run or --diff", param_hint="'--exit-code'")
    wanted = ManifestFile(file)
    result = wanted.apply(server.clipper, server.out, only_show=dry_run or diff, diff=diff, prune=prune)
    server.out.done(result.as_json, result.text)
    if not result.is_done:
        raise typer.Exit(1)
    if exit_code and result.as_json["plan"]:
        raise typer.Exit(2)


def export(
    server: Server,
    artifacts: Annotated[
        Path | None,
        typer.Option(
            help="Write the models' artifacts into this folder, too; apply finds them in artifacts/ beside the file.",
            metavar="FOLDER",
            show_default="none",
            readable=False,
        ),
    ] = None,
) -> None:
    """Write a file for clipper apply that has the server's models and applications."""
    if artifacts is not None and server.url is not None:
        raise typer.BadParameter("--artifacts reads the server's home: run it on the server's machine, without --url")
    # Imported here, as above.
    from clipper.cli.commands.manifest_file import export_to

    export_to(server.out, server.clipper, find_home(server.home), artifacts)
