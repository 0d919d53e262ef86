"""The options that a server was started with, their sources, and which of them a home keeps for the next start.

This module does no I/O. An option is taken from the first of these sources that has it: the command line, the
environment, the file of ``--config``, the options kept from the last start. Options that nobody gave are not kept, so a
newer Clipper uses its own defaults for them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from clipper import __version__
from clipper.errors import InvalidArgument
from clipper.settings.fields import Described, settings_of
from clipper.settings.server import ServerSettings

# The version of the file's format: it grows when an older Clipper would misread the file.
FORMAT = 1
# All options together take a few KB; a value may be a path, or be repeated.
MAX_BYTES = 64 * 1024

GivenSource = Literal["command line", "environment", "file"]
OptionSource = Literal[GivenSource, "kept", "default"]
# ``start`` runs in the background. The other two are watched by their callers, who give all options at each start.
StartedBy = Literal["start", "foreground", "serve"]

# Options whose file matters only by whether it is given.
_FILES = ("tls_cert", "tls_client_ca")
_ENDS_WORKERS = ("host", "query_port", "store", "registry", *_FILES)
_SETTINGS: Mapping[str, Described] = {described.name: described for described in settings_of(ServerSettings)}


class StartOption(Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        given: the source that gave it, at this start or at the earlier start from which it is kept.
        value: the value as JSON; None for a secret.
        is_kept: whether this start uses the kept value.
        is_secret: whether the value may hold a password, so that it is not kept.
    """

    given: GivenSource
    value: Any = None
    is_kept: bool = False
    is_secret: bool = False


class StartOptions(Struct, frozen=True):
    """The options that were given or kept, by their fields. ``clipper`` is the version that wrote them."""

    started_by: StartedBy = "foreground"
    options: dict[str, StartOption] = {}
    format: int = FORMAT
    clipper: str = __version__

    def values(self) -> dict[str, Any]:
        """The values of ``ServerSettings``, without secrets."""
        return {name: _read(_SETTINGS[name], one.value) for name, one in self.options.items() if not one.is_secret}

    def source(self, name: str) -> OptionSource:
        """Return where this start took a setting from."""
        option = self.options.get(name)
        if option is None:
            return "default"
        return "kept" if option.is_kept else option.given


def start_options(values: Mapping[str, Any], sources: Mapping[str, GivenSource], started_by: StartedBy) -> StartOptions:
    """Return the options of a start with these ``values``, which come from ``sources``, else from the command line."""
    return StartOptions(
        started_by,
        {
            name: _option(value, sources.get(name, "command line"))
            for name, value in values.items()
            if name in _SETTINGS
        },
    )


def with_kept(now: StartOptions, kept: StartOptions, *, has_file: bool) -> StartOptions:
    """Add the kept options to those of a start. ``has_file``: whether the start has a file of its own; then kept
    options of an earlier file do not count. Raises InvalidArgument if the value of a kept option is a secret, and must
    be given again.
    """
    options = dict(now.options)
    for name, option in kept.options.items():
        if name in options or (has_file and option.given == "file"):
            continue
        if option.is_secret:
            flag, variable = _SETTINGS[name].flag, _SETTINGS[name].setting.environment
            again = f"give {flag} again" + (f", or set {variable}" if variable else "")
            raise InvalidArgument(
                f"the last start had {flag} with an address that may hold a password, which is not kept: {again}. "
                "The address of a file that holds it, file:PATH, is kept. --reset-options uses nothing that is kept"
            )
        options[name] = replace(option, is_kept=True)
    return replace(now, options=options)


def texts(options: StartOptions) -> Iterator[tuple[str, str]]:
    """Write each option as on a command line, by its name: ``--workers 4``. A secret is not shown."""
    for name, option in options.options.items():
        yield name, _text(name, option)


def changes(before: StartOptions, now: StartOptions) -> list[str]:
    """List how the options of a start differ from those of the start before: ``--workers 4 (was 2)``."""
    told = []
    for name in dict.fromkeys([*before.options, *now.options]):
        old, new = before.options.get(name), now.options.get(name)
        if old is not None and new is not None and (old.value, old.is_secret) == (new.value, new.is_secret):
            continue
        if new is None or (old is not None and new.value is False):
            told.append(f"no {_text(name, old)}" if old is not None else _text(name, new))
        elif new.value is not False:
            was = "not given" if old is None else _value_text(old)
            told.append(f"{_text(name, new)} (was {was})")
    return told


def ends_workers(before: StartOptions, now: StartOptions) -> list[str]:
    """List the changed options for which all workers are replaced at once, so that open queries are lost.

    Workers that listen at another address, or that use another store, cannot run beside the old ones.
    """
    return [
        _SETTINGS[name].flag
        for name in _ENDS_WORKERS
        if _value(before, name) != _value(now, name)
        and not (name in _FILES and name in before.options and name in now.options)
    ]


def _value(options: StartOptions, name: str) -> tuple[Any, bool]:
    """Return an option's value as JSON, and whether it is a secret, whose value is not known."""
    option = options.options.get(name)
    return (_to_json(_SETTINGS[name].default), False) if option is None else (option.value, option.is_secret)


def value_text(value: Any) -> str:
    """Return a setting's value as text for people; empty if there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def encode(options: StartOptions) -> bytes:
    return msgspec.json.encode(options)


def decode(content: bytes) -> StartOptions:
    """Decode kept options. Raises InvalidArgument if no Clipper, this one or an earlier one, has encoded them.

    The message completes a sentence whose subject is the file.
    """
    if len(content) > MAX_BYTES:
        raise InvalidArgument(f"has over {MAX_BYTES} bytes, and cannot be options of a server")
    try:
        found = msgspec.json.decode(content, type=_Format)
        if found.format > FORMAT:
            raise InvalidArgument(
                f"was written by Clipper {found.clipper:.50}, which is newer than this one ({__version__}): run that"
            )
        options = msgspec.json.decode(content, type=StartOptions)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"is damaged: {error}") from error
    for name, option in options.options.items():
        if name not in _SETTINGS:
            raise InvalidArgument(
                f"has the option {name!r:.100}, which this Clipper ({__version__}) does not know; Clipper "
                f"{options.clipper:.50} wrote it"
            )
        if not option.is_secret:
            _read(_SETTINGS[name], option.value)
    return options


class _Format(Struct):
    format: int
    clipper: str = "of an unknown version"


def _option(value: Any, given: GivenSource) -> StartOption:
    if isinstance(value, str) and _may_hold_a_secret(value):
        return StartOption(given, is_secret=True)
    return StartOption(given, _to_json(value))


def _to_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else msgspec.to_builtins(value, enc_hook=str)


def _may_hold_a_secret(text: str) -> bool:
    """Tell whether it is a URL with a password, or with parameters, one of which may be a password."""
    if "://" not in text:
        return False
    try:
        url = urlsplit(text)
        return url.password is not None or bool(url.query)
    except ValueError:
        return True


def _read(described: Described, value: Any) -> Any:
    """Read a setting's value from JSON. Raises InvalidArgument if it is none."""
    kind, setting = described.type, described.setting
    if value is None and described.default is None:
        return None
    try:
        if Path in get_args(kind):
            return Path(msgspec.convert(value, str))
        found = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"has an invalid value for {described.flag}: {error}") from error
    setting.check(described.flag, found)
    if setting.read is not None and get_origin(kind) is not tuple and isinstance(found, str):
        setting.read(found)
    return found


def _text(name: str, option: StartOption | None) -> str:
    flag = _SETTINGS[name].flag
    if option is None or option.value is True:
        return flag
    if isinstance(option.value, list):
        return " ".join(f"{flag} {each}" for each in option.value)
    return f"{flag} {_value_text(option)}"


def _value_text(option: StartOption) -> str:
    return "an address that is not shown" if option.is_secret else value_text(option.value)
