"""Options that several commands share, and how their texts are read."""

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from clipper.control.snapshot import ConfidenceFrom, Wait
from clipper.errors import InvalidArgument
from clipper.run_as import find_run_as
from clipper.scaling import ReplicaRange
from clipper.tls.material import TlsPaths, read_material
from clipper.types import STORE_VARIABLE, Framework, Transport

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def parse_size(text: str) -> int:
    """``512m``, ``2g``, ``1048576`` as bytes; a unit is 1,024 of the one below."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size: expected e.g. 512m, 2g, or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


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


def parse_replicas(text: str) -> int | ReplicaRange:
    """``3``, or ``1..4``: from one to four, as the load needs."""
    least, dots, most = text.partition("..")
    if not least.isdecimal() or (dots and not most.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not a number of replicas: expected e.g. 3, or a range such as 1..4")
    if int(least) < 1 or (dots and int(most) < int(least)):
        raise typer.BadParameter(f"{text!r}: expected at least 1 replica, and no more at first than at last")
    return ReplicaRange(int(least), int(most)) if dots else int(least)


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


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error}): expected e.g. 0, [1.5, 2] or '\"cat\"'") from error


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


def parse_optional(text: str | float | None) -> float | None:
    """A number, or ``none``."""
    if text is None or str(text).lower() == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number: expected a number, or none") from None
    if math.isnan(number):  # JSON would have it as null, and so as none
        raise typer.BadParameter(f"{text!r} is not a number: expected a number, or none")
    return number


def check_run_as(text: str | None) -> str | None:
    """Here and not only by the server, which would tell it in its log."""
    if text is not None:
        try:
            find_run_as(text)
        except InvalidArgument as error:
            raise typer.BadParameter(str(error)) from error
    return text


def parse_count(text: str | int | None) -> int | None:
    """A whole number, or ``none``."""
    number = parse_optional(text)
    if number is not None and not number.is_integer():
        raise typer.BadParameter(f"{text!r} is not a whole number: expected a whole number, or none")
    return None if number is None else int(number)


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

SloMs = Annotated[float, typer.Option(help="Within how many milliseconds a query is answered.", min=0.1)]
Default = Annotated[
    str | None, typer.Option(help="JSON that is answered when no model has answered in time.", metavar="JSON")
]
DataPath = Annotated[
    Path | None, typer.Option(help="A file or folder that module:Class gets as model_data; a model's second file.")
]
InputTypeText = Annotated[
    str | None,
    typer.Option("--input-type", help="What one input is, e.g. float64[784] or string, if the model does not say."),
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
OutputNames = Annotated[
    str | None,
    typer.Option(
        "--output",
        help="What is answered: labels, probabilities, or outputs by name.",
        metavar="labels|probabilities|NAME[,NAME...]",
        show_default="the model's own",
    ),
]
PythonPath = Annotated[
    str | None,
    typer.Option(help="An interpreter's path, to run the model with as it is; or a version, e.g. 3.12, to build with."),
]
RequirementsPath = Annotated[
    Path | None, typer.Option(help="A requirements file: an environment of its packages is built for the model.")
]

PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="Which models are asked and what is made of their answers: a name, or module:Class."),
]
PolicyParameters = Annotated[
    list[str] | None,
    typer.Option("--policy-parameter", help="A parameter of the policy, e.g. eta=0.05.", metavar="NAME=VALUE"),
]
LossName = Annotated[
    str | None, typer.Option("--loss", help="How wrong an answer is, given the right one: a name, or module:function.")
]
LossParameters = Annotated[
    list[str] | None,
    typer.Option("--loss-parameter", help="A parameter of the loss, e.g. range=10.", metavar="NAME=VALUE"),
]
HalfLife = Annotated[
    str | None,
    typer.Option(
        help="After how many observations one counts half, or none; else as suits the policy.", metavar="N|none"
    ),
]
WaitFor = Annotated[
    Wait | None,
    one_of(Wait, help="For which of several models an answer waits: all, those expected in time, or until decided."),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="How many numbers each query brings for its policy; input if its input is them; or none.",
        metavar="N|input|none",
    ),
]
Inherit = Annotated[
    float | None,
    typer.Option(help="How much of what was learned of a version counts for the next one, from 0 to 1.", min=0, max=1),
]
Ramp = Annotated[
    str | None,
    typer.Option(
        help="The share of queries that a new link or version gets until feedback has told enough; or none, no ramp.",
        metavar="0..0.5|none",
    ),
]
MaxLossIncrease = Annotated[
    str | None,
    typer.Option(
        help="A new link or version that loses so much more than the rest is stopped, or rolled back; or none, never.",
        metavar="0..1|none",
    ),
]
PriorWeight = Annotated[
    float | None, typer.Option(help="For how many observations what all taught counts in a new context.", min=0)
]
ConfidenceThreshold = Annotated[
    str | None,
    typer.Option(help="Less sure answers than this are replaced by the default; or none.", metavar="0..1|none"),
]
ConfidenceSource = Annotated[
    ConfidenceFrom | None,
    one_of(
        ConfidenceFrom,
        "--confidence-from",
        help="What an answer's confidence is: how many models agree, or the probabilities that it states itself.",
    ),
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="Make confidence how often such answers are right, by feedback.",
        show_default="no",
    ),
]
FeedbackTtlS = Annotated[
    float | None, typer.Option("--feedback-ttl-s", help="For how many seconds feedback on a query may come.", min=0)
]

LogDecisions = Annotated[
    float | None,
    typer.Option(help="The share of queries that is written to the decision log, e.g. 0.1; 0 is none.", min=0, max=1),
]

CostWeight = Annotated[
    float | None,
    typer.Option(help="How much loss a cost of 1 is worth: models are chosen by loss + weight * cost.", min=0),
]

RequireKey = Annotated[
    bool | None,
    typer.Option(
        "--require-key/--no-require-key",
        help="Answer only who shows a key, also where the server asks for none.",
        show_default="no",
    ),
]
MaxInFlight = Annotated[
    str | None,
    typer.Option(help="How many queries may be in flight at once; or none, which is no limit.", metavar="N|none"),
]
MaxPerSecond = Annotated[
    str | None,
    typer.Option(help="How many queries a second are let in; or none, which is no limit.", metavar="N|none"),
]

# As much as the supervisor takes when it is not told.
DEFAULT_CACHE = "64m"
DEFAULT_MAX_BODY = "8m"
