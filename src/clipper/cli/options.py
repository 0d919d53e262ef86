"""Options that several commands share, and how their texts are read."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def parse_size(text: str) -> int:
    """``512m``, ``2g``, ``1048576`` as bytes; a unit is 1,024 of the one below."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size: expected e.g. 512m, 2g, or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error}): expected e.g. 0, [1.5, 2] or '\"cat\"'") from error


Home = Annotated[
    Path | None,
    typer.Option(help="The server's directory.", envvar="CLIPPER_HOME", show_default="~/.clipper", file_okay=False),
]
Url = Annotated[
    str | None, typer.Option(help="The server's management address, e.g. http://host:1338, in place of --home.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON, and nothing else, to standard output.")]
OfVersion = Annotated[str | None, typer.Option("--version", help="A version of the model.")]

Host = Annotated[str, typer.Option(help="The address to listen on.")]
QueryPort = Annotated[int, typer.Option(help="The port for queries.", min=0, max=65535)]
ManagementPort = Annotated[int, typer.Option(help="The port for management.", min=0, max=65535)]
Workers = Annotated[int, typer.Option(help="How many processes answer queries.", min=1, max=64)]
CacheSize = Annotated[
    int, typer.Option(help="Bound of each worker's cache, e.g. 512m.", parser=parse_size, metavar="SIZE")
]

SloMs = Annotated[float, typer.Option(help="Within how many milliseconds a query is answered.", min=0.1)]
Default = Annotated[
    str | None, typer.Option(help="JSON that is answered when no model has answered in time.", metavar="JSON")
]
DataPath = Annotated[Path | None, typer.Option(help="A file or folder that module:Class gets as model_data.")]
InputTypeText = Annotated[
    str | None,
    typer.Option("--input-type", help="What one input is, e.g. float64[784] or string, if the model does not say."),
]
PythonPath = Annotated[str | None, typer.Option(help="The Python interpreter to run the model with.")]

# As much as the supervisor takes when it is not told.
DEFAULT_CACHE = "64m"
