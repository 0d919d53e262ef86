"""Options that several commands share, and how their texts are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from clipper.errors import InvalidArgument
from clipper.run_as import find_run_as
from clipper.settings.replicas import read_replicas
from clipper.settings.texts import read_json, read_size
from clipper.tls.material import TlsPaths, read_material
from clipper.types import STORE_VARIABLE, Framework, Transport

T = TypeVar("T")


def parser(read: Callable[[str], T]) -> Callable[[str], T]:
    """Has what ``read`` does not take told as wrong usage."""

    def parse(text: str) -> T:
        try:
            return read(text)
        except InvalidArgument as error:
            raise typer.BadParameter(str(error)) from error

    return parse


parse_size = parser(read_size)
parse_json = parser(read_json)
parse_replicas = parser(read_replicas)


def parse_body_size(text: str) -> int:
    size_bytes = parse_size(text)
    if not 64 * 1024 <= size_bytes <= 64 * 1024**2:
        raise typer.BadParameter(f"{text!r} is not a size of a body: expected 64k to 64m")
    return size_bytes


def parse_log_size(text: str) -> int:
    size_bytes = parse_size(text)
    if not 64 * 1024**2 <= size_bytes <= 1024**5:
        raise typer.BadParameter(f"{text!r} is not a size of a decision log: expected 64m to 1024t")
    return size_bytes


def check_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsPaths | None:
    """The three options, if they go together and can be used: what is wrong is told by the command that was given."""
    if certificate is None and key is None:
        if client_ca is not None:
            raise typer.BadParameter("needs --tls-cert and --tls-key", param_hint="--tls-client-ca")
        return None
    if certificate is None or key is None:
        raise typer.BadParameter(
            "give both; they may name one file that holds both", param_hint="--tls-cert, --tls-key"
        )
    # The server may run in another folder.
    paths = TlsPaths(certificate.absolute(), key.absolute(), None if client_ca is None else client_ca.absolute())
    read_material(paths)
    return paths


def parse_parameters(texts: list[str] | None) -> dict[str, Any]:
    """``eta=0.05`` by name; a value that is not JSON is a text."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} is not a parameter: expected NAME=VALUE, e.g. eta=0.05")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def check_run_as(text: str | None) -> str | None:
    """Here and not only by the server, which would tell it in its log."""
    if text is not None:
        try:
            find_run_as(text)
        except InvalidArgument as error:
            raise typer.BadParameter(str(error)) from error
    return text


def one_of(kind: Any, *names: str, **settings: Any) -> Any:
    """An option whose values are those of a ``Literal``; typer alone would tell of a wrong one in pydantic's words."""
    values = get_args(kind)

    def parse(text: str) -> str:
        if text not in values:
            raise typer.BadParameter(f"{text!r} is not known: expected {', '.join(values)}")
        return text

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return typer.Option(*names, parser=parse, autocompletion=complete, metavar="|".join(values), **settings)


Home = Annotated[
    Path | None,
    typer.Option(help="The server's directory.", envvar="CLIPPER_HOME", show_default="~/.clipper", file_okay=False),
]
Url = Annotated[
    str | None, typer.Option(help="The server's management address, e.g. http://host:1338, in place of --home.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON, and nothing else, to standard output.")]
OfVersion = Annotated[str | None, typer.Option("--version", help="A version of the model.")]

Host = Annotated[str, typer.Option(help="The address of the query port.")]
ManagementHost = Annotated[str, typer.Option(help="The address of the management port.")]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(help="A name by which the management port may be called, e.g. a proxy's. May be repeated."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Let the management port be reached from other machines without TLS.")
]
OpenMetrics = Annotated[bool, typer.Option("--open-metrics", help="Answer /metrics without a token.")]
ApiKeys = Annotated[bool, typer.Option("--api-keys", help="Answer predict and observe only with a key.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="The query port's key. Others on this machine can read it here, but not in the environment.",
        envvar="CLIPPER_API_KEY",
        metavar="KEY",
        show_default="none",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        help="The certificate that both ports show, in PEM, with those that signed it behind it: they speak TLS then.",
        metavar="FILE",
        show_default="no TLS",
    ),
]
TlsKey = Annotated[
    Path | None, typer.Option(help="The private key of --tls-cert, in PEM, not encrypted.", metavar="FILE")
]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(
        help="Clients of the query port have to show a certificate that one of these, in PEM, has signed.",
        metavar="FILE",
        show_default="none is asked for",
    ),
]
QueryPort = Annotated[int, typer.Option(help="The port for queries.", min=0, max=65535)]
ManagementPort = Annotated[int, typer.Option(help="The port for management.", min=0, max=65535)]
Workers = Annotated[int, typer.Option(help="How many processes answer queries.", min=1, max=64)]
CacheSize = Annotated[
    int, typer.Option(help="Bound of each worker's cache, e.g. 512m.", parser=parse_size, metavar="SIZE")
]

MaxBodySize = Annotated[
    int,
    typer.Option(
        help="Bound of a request's body, where an application's inputs need no more, e.g. 16m.",
        parser=parse_body_size,
        metavar="SIZE",
    ),
]

StoreAddress = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Where learned state is kept: sqlite:PATH, redis://HOST:PORT/DB, or file:PATH of a file that says so.",
        envvar=STORE_VARIABLE,
        show_default="a file in the home",
    ),
]

FeedbackQueries = Annotated[
    int | None,
    typer.Option(
        help="How many queries each worker keeps for feedback by query_id; the oldest go first.",
        min=1,
        show_default="250000",
    ),
]
MaxContexts = Annotated[
    int | None,
    typer.Option(
        help="How many contexts are kept of each application; those go first whose feedback is the longest ago.",
        min=1,
        show_default="100000",
    ),
]
KeepVersions = Annotated[
    int | None,
    typer.Option(
        help="How many versions of each model are kept that do not run; the oldest are removed.",
        min=1,
        show_default="10",
    ),
]

DecisionLogSize = Annotated[
    int | None,
    typer.Option(
        help="Bound of the decision log, e.g. 10g; the oldest records are removed.",
        parser=parse_log_size,
        metavar="SIZE",
        show_default="1g",
    ),
]

RunAsUser = Annotated[
    str | None,
    typer.Option(
        "--run-as",
        help="The user that models run as, and builds of their packages; only where the server runs as root.",
        callback=check_run_as,
        metavar="USER[:GROUP]",
        show_default="the server's",
    ),
]

DockerBaseImage = Annotated[
    str | None,
    typer.Option(
        help="What images of models are built on: Python, numpy and whatever they need.",
        envvar="CLIPPER_DOCKER_BASE_IMAGE",
        show_default="python:X.Y-slim, as this Python",
    ),
]
DockerNetwork = Annotated[
    str | None,
    typer.Option(
        help="The network of containers and builds in Docker.", envvar="CLIPPER_DOCKER_NETWORK", show_default="bridge"
    ),
]

DockerTransport = Annotated[
    Transport | None,
    one_of(
        Transport,
        help="How containers in Docker are reached; tcp where they cannot share a folder with the server.",
        envvar="CLIPPER_DOCKER_TRANSPORT",
        show_default="unix",
    ),
]

DataPath = Annotated[
    Path | None, typer.Option(help="A file or folder that module:Class gets as model_data; a model's second file.")
]
FrameworkName = Annotated[
    Framework | None,
    one_of(
        Framework,
        "--framework",
        help="What the model is of, where its file does not tell.",
        show_default="recognised",
    ),
]
RequirementsPath = Annotated[
    Path | None, typer.Option(help="A requirements file: an environment of its packages is built for the model.")
]

PolicyParameters = Annotated[
    list[str] | None,
    typer.Option(
        "--policy-parameter", help="A parameter of the policy, e.g. eta=0.05. May be repeated.", metavar="NAME=VALUE"
    ),
]
LossParameters = Annotated[
    list[str] | None,
    typer.Option(
        "--loss-parameter", help="A parameter of the loss, e.g. range=10. May be repeated.", metavar="NAME=VALUE"
    ),
]
# As much as the supervisor takes when it is not told.
DEFAULT_CACHE = "64m"
DEFAULT_MAX_BODY = "8m"
