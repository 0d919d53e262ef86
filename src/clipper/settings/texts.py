"""Read settings from their text on a command line. Each function raises InvalidArgument for a text that is wrong."""

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from clipper.base.hosts import address_of
from clipper.base.masking import without_password
from clipper.errors import InvalidArgument
from clipper.settings.fields import Setting, check_range
from clipper.settings.sample_files import TABLES, read_sample_table

INPUT_TYPE_HELP = (
    'Type of one input, if the model does not say it: e.g. float64[784], string, or a record such as "age: float64, '
    'job: string?".'
)
# No size has more digits. Python would turn a much longer number into infinity.
_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
# The form of origins that browsers send: without a path, and without the default port of the scheme.
_ORIGIN = re.compile(
    r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[1-9]\d{0,4})?"
)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_WHOLE_NUMBER = re.compile(r"[-+]?[0-9]{1,20}")
# float() also reads 1_000, nan and infinity, which other programs reject as numbers.
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
# Neither spaces nor the separators between names and amounts. Ray has names such as accelerator_type:A100.
_RESOURCE_NAME = re.compile(r"[^\s,=]{1,100}")
# The unit in which Ray counts.
LEAST_RESOURCE = 0.0001
MOST_RESOURCE = 1e6
# A node has a handful.
MAX_RESOURCES = 32
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def number_of(kind: type[int] | type[float], text: str) -> float | None:
    """Read a number of this kind; None if the text is none, or if it is too large for a float64."""
    if kind is int:
        return int(text) if _WHOLE_NUMBER.fullmatch(text) else None
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


def read_size(text: str) -> int:
    """Read ``512m``, ``2g`` or ``1048576`` as bytes; a unit is 1,024 of the unit below."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument(f"{text!r:.100} is not a size: expected e.g. 512m, 2g, or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def read_resources(text: str) -> dict[str, float]:
    """Read ``ssd=1,tpu=2`` as amounts by name."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, amount = part.strip().rpartition("=")
        if name in found:
            raise InvalidArgument(f"resources name {name!r:.100} twice: expected each once, with one amount")
        try:
            found[name] = float(amount)
        except ValueError:
            raise InvalidArgument(
                f"{part!r:.100} is not a resource with its amount: expected e.g. ssd=1, or several such as ssd=1,tpu=2"
            ) from None
    return checked_resources(found)


def checked_resources(resources: Mapping[str, object]) -> dict[str, float]:
    """Return amounts of resources by name, as floats. Raises InvalidArgument for a wrong one, or for too many."""
    check_range("the number of resources", len(resources), 0, MAX_RESOURCES)
    found = {}
    for name, amount in resources.items():
        if not (_RESOURCE_NAME.fullmatch(name) and name.isprintable()):
            raise InvalidArgument(
                f"{name!r:.110} is not a resource's name: expected at most 100 printable characters, without spaces, "
                "commas and ="
            )
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise InvalidArgument(f"the resource {name} is {amount!r:.100}: expected a number")
        check_range(f"the resource {name}", amount, LEAST_RESOURCE, MOST_RESOURCE)
        found[name] = float(amount)
    return found


def read_ports(text: str) -> tuple[int, int]:
    """Read ``21000-21999`` as its first and its last port."""
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise InvalidArgument(f"{text!r:.100} is not a range of ports: expected e.g. 21000-21999, of 1024 to 65535")
    return first, last


def checked_ports(text: str) -> str:
    """Return a text that ``read_ports`` can read."""
    read_ports(text)
    return text


def read_json(text: str) -> Any:
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{text!r:.100} is not JSON ({error}): expected e.g. 0, [1.5, 2] or '\"cat\"'") from error


def _finite(text: str) -> float:
    """Refuse infinite numbers and NaN, which JSON lacks: the encoder would send them to the server as null."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite float64")
    return number


def text_of(text: str) -> str:
    """Return a text; that of a file for ``@`` and its path, and that of standard input for ``-``."""
    if text != "-" and not text.startswith("@"):
        return text
    try:
        return (sys.stdin.read() if text == "-" else Path(text[1:]).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        place = "standard input" if text == "-" else text[1:]
        raise InvalidArgument(f"{place} cannot be read: {error}") from error


def read_json_or_file(text: str) -> Any:
    """Read JSON of a text, a file or standard input, as ``text_of`` does."""
    return read_json(text_of(text))


def read_sample(text: str) -> Any:
    """Read JSON as ``read_json_or_file`` does, or a table's first rows as records."""
    path = Path(text[1:])
    if not text.startswith("@") or path.suffix not in TABLES:
        return read_json_or_file(text)
    try:
        return read_sample_table(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error


def read_number_or_none(text: str) -> float | None:
    if text.lower() == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):  # JSON would encode NaN as null, which means none
        raise InvalidArgument(f"{text!r:.100} is not a number: expected a number, or none")
    return number


def read_count_or_none(text: str) -> int | None:
    """Read a whole number, or ``none``."""
    number = read_number_or_none(text)
    if number is not None and not number.is_integer():
        raise InvalidArgument(f"{text!r:.100} is not a whole number: expected a whole number, or none")
    return None if number is None else int(number)


def read_grpc_port(text: str) -> int | Literal["off"]:
    if text == "off":
        return "off"
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise InvalidArgument(f"{text!r:.100} is not a port: expected a number from 0 to 65535, or off")
    return int(text)


def read_origin(text: str) -> str:
    """Read an origin as browsers send it, such as ``https://shop.example`` or ``http://localhost:5173``, or ``*``."""
    if text != "*" and not _ORIGIN.fullmatch(text):
        raise InvalidArgument(
            f"{text!r:.100} is not an origin: expected SCHEME://HOST or SCHEME://HOST:PORT in lower case, without a "
            "path and without the scheme's own port, e.g. https://shop.example, or * for all"
        )
    return text


def read_host(text: str) -> str:
    """Read a host without a port: hosts are compared without it, so a host with a port would never match."""
    if address_of(text) is None and not _HOST.fullmatch(text):
        raise InvalidArgument(f"{text!r:.100} is not a host: expected a name or an address without a port")
    return text


def read_endpoint(text: str) -> str:
    """Read the URL of a receiver of OTLP over HTTP, without the path of a signal and without a slash at its end."""
    expected = "expected e.g. http://localhost:4318"
    try:
        url = urlsplit(text)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_url = False
    if not is_url or not text.isprintable() or " " in text:
        raise InvalidArgument(f"{text!r:.100} is not the URL of a receiver: {expected}")
    # Everybody on the machine can read command lines.
    if url.username is not None or url.query or url.fragment:
        raise InvalidArgument(
            f"the URL of the receiver at {url.hostname!r:.100} has more than a path: {expected}; credentials belong "
            "into OTEL_EXPORTER_OTLP_HEADERS"
        )
    return text.rstrip("/").removesuffix("/v1/traces")


def read_registry(text: str) -> str:
    """Read the address of a registry that several servers share, or of a file that contains the address."""
    try:
        url = urlsplit(text)
        is_one = url.port is None or url.port > 0
        is_one = is_one and url.scheme in ("redis", "rediss", "unix", "file") and bool(url.netloc + url.path)
    except ValueError:
        is_one = False
    if not is_one:
        raise InvalidArgument(
            f"registry {without_password(text)!r:.100} is not known: expected redis://HOST:PORT/DB, or file:PATH of a "
            "file that has this"
        )
    return text


def read_text_or_none(text: str) -> str | None:
    return None if text == "none" else text


def read_cost(text: str) -> float | Literal["auto"]:
    """Read a number of at least 0, or ``auto``."""
    if text == "auto":
        return "auto"
    try:
        cost = float(text)
    except ValueError:
        cost = math.nan
    if not 0 <= cost < math.inf:
        raise InvalidArgument(f"{text!r:.100} is not a cost: expected a number, at least 0, or auto, which is measured")
    return cost


def read_features(text: str) -> int | str | None:
    """Read a whole number, ``input``, names of a record's fields, or ``none``."""
    return read_count_or_none(text) if text == "none" or number_of(float, text) is not None else text


def size(help: str, **looks: Any) -> Setting:  # noqa: A002
    """Make a setting that is a number of bytes, such as ``512m``."""
    return Setting(help, metavar="SIZE", read=read_size, **looks)


def number_or_none(help: str, *, unit: str = "N", whole: bool = False, **looks: Any) -> Setting:  # noqa: A002
    """Make a setting that is a number or, as ``none``, None."""
    return Setting(help, metavar=f"{unit}|none", read=read_count_or_none if whole else read_number_or_none, **looks)
