"""``clipper secret``: the secrets that a home keeps for its models, as files; no server is needed."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clipper.cli.options import AsJson, Home
from clipper.cli.output import Output
from clipper.cli.server import Commands
from clipper.errors import InvalidArgument
from clipper.settings.home import find_home, make_home
from clipper.settings.secret_files import SecretFiles
from clipper.settings.variables import MAX_VALUE_BYTES

commands = Commands("Secrets of this machine, which models get as variables: clipper deploy --secret NAME.")

SecretName = Annotated[str, typer.Argument(help="Name of the secret, e.g. DB_PASSWORD.")]


@commands.command("set")
def set_secret(
    name: SecretName,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="The file with the value.", show_default="standard input", readable=False),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Keep a secret in the home, in a file that only this user can read. Containers that start from now on get it."""
    out, place = Output(as_json), find_home(home)
    value = _given(name, file)
    make_home(place)
    SecretFiles(place, os.environ).set(name, value)
    out.done(
        {"set": name},
        f"the secret {name} is in {place}",
        f"next: clipper deploy MODEL FILE --secret {name}; clipper model redeploy MODEL, if a model has it already",
    )


@commands.command("list")
def list_secrets(home: Home = None, as_json: AsJson = False) -> None:
    """List the names of the secrets that models on this machine can get, and where their values are."""
    found = {name: str(path) for name, path in sorted(SecretFiles(find_home(home), os.environ).names().items())}
    Output(as_json).table(found, ("name", "file"), list(found.items()), "no secrets; next: clipper secret set NAME")


@commands.command("delete")
def delete_secret(name: SecretName, home: Home = None, as_json: AsJson = False) -> None:
    """Remove a secret from the home. Containers that run keep it; those that need it can no longer start."""
    SecretFiles(find_home(home), os.environ).delete(name)
    Output(as_json).done({"deleted": name}, f"the secret {name} is removed", "next: clipper secret list")


def _given(name: str, file: Path | None) -> str:
    """Read the value, which is never an argument: other users can read command lines."""
    try:
        if file is not None:
            with file.open("rb") as opened:
                content = opened.read(MAX_VALUE_BYTES + 3)
        elif sys.stdin.isatty():
            return str(typer.prompt(f"value of {name}", hide_input=True))
        else:
            content = sys.stdin.buffer.read(MAX_VALUE_BYTES + 3)
        return content.decode()
    except OSError as error:
        raise InvalidArgument(f"{file or 'standard input'} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise InvalidArgument(f"the value of {name} is not text in UTF-8, which a variable has to be") from None
