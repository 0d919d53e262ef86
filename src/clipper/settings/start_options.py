"""The options that a server was started with, and where each came from: what a home keeps of them for the next start.

Decides, and reads nothing: the command that starts a server says what was given, and a home's file what was kept. An
option is taken from the first of: the command line, the environment, the file of ``--config``, what is kept. Options
that nobody gave are not kept, so that a newer Clipper brings its own defaults.
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
from clipper.settings.fields import Described, check_range, settings_of
from clipper.settings.server import ServerSettings

# What is kept, and what else a future Clipper would have to understand to use it as it is meant.
FORMAT = 1
# All options together are some KB; a value may be a path, or repeated.
MAX_BYTES = 64 * 1024

GivenSource = Literal["command line", "environment", "file"]
OptionSource = Literal[GivenSource, "kept", "default"]
# A command in the background; or one whose caller watches the server and gives all of its options at each start.
StartedBy = Literal["start", "foreground", "serve"]

# Of the files, only whether there are any.
_FILES = ("tls_cert", "tls_client_ca")
_ENDS_WORKERS = ("host", "query_port", "store", "registry", *_FILES)
_SETTINGS: Mapping[str, Described] = {described.name: described for described in settings_of(ServerSettings)}


class StartOption(Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        given: where it was given, in this start or in the one from which it is kept.
        value: as JSON has it; None for a secret.
        is_kept: this start took it from what was kept.
        is_secret: the value has a password, or may have one, and is not kept.
    """

    given: GivenSource
    value: Any = None
    is_kept: bool = False
    is_secret: bool = False


class StartOptions(Struct, frozen=True):
    """``clipper``: the version that wrote this. ``options`` are those that were given or kept, by their fields."""

    started_by: StartedBy = "foreground"
    options: dict[str, StartOption] = {}
    format: int = FORMAT
    clipper: str = __version__

    def values(self) -> dict[str, Any]:
        """The values of ``ServerSettings``, without secrets."""
        return {name: _read(_SETTINGS[name], one.value) for name, one in self.options.items() if not one.is_secret}

    def source(self, name: str) -> OptionSource:
        """Where this start has a setting from."""
        option = self.options.get(name)
        if option is None:
            return "default"
        return "kept" if option.is_kept else option.given


def start_options(values: Mapping[str, Any], sources: Mapping[str, GivenSource], started_by: StartedBy) -> StartOptions:
    """The options of a start at which ``values`` were given. ``sources`` names where, if not on the command line."""
    return StartOptions(
        started_by,
        {
            name: _option(value, sources.get(name, "command line"))
            for name, value in values.items()
            if name in _SETTINGS
        },
    )


def with_kept(now: StartOptions, kept: StartOptions, *, has_file: bool) -> StartOptions:
    """The options of a start that also uses what is kept.

    Args:
        has_file: the start has a file of its own, so that what is kept of an earlier file does not count.

    Raises:
        InvalidArgument: the value of a kept option is a secret, and has to be given again.
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
    """Each option as on a command line, by its name: ``--workers 4``. A secret is not shown."""
    for name, option in options.options.items():
        yield name, _text(name, option)


def changes(before: StartOptions, now: StartOptions) -> list[str]:
    """How the options of a start differ from those of the start before, as texts: ``--workers 4 (was 2)``."""
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
    """The options whose change ends all workers at once, with their open queries.

    Workers that listen elsewhere, or learn into another store, cannot stand beside those that run.
    """
    return [
        _SETTINGS[name].flag
        for name in _ENDS_WORKERS
        if _value(before, name) != _value(now, name)
        and not (name in _FILES and name in before.options and name in now.options)
    ]


def _value(options: StartOptions, name: str) -> tuple[Any, bool]:
    """What an option is, as JSON, and whether it is a secret, of which only that is known."""
    option = options.options.get(name)
    return (_to_json(_SETTINGS[name].default), False) if option is None else (option.value, option.is_secret)


def value_text(value: Any) -> str:
    """A setting's value for people; an empty text if there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def encode(options: StartOptions) -> bytes:
    return msgspec.json.encode(options)


def decode(content: bytes) -> StartOptions:
    """
    Raises:
        InvalidArgument: it is not what this Clipper, or one before it, has encoded. The message is the rest of a
            sentence about it.
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
    """Whether it is a URL with a password, or with parameters, of which one may be a password."""
    if "://" not in text:
        return False
    try:
        url = urlsplit(text)
        return url.password is not None or bool(url.query)
    except ValueError:
        return True


def _read(described: Described, value: Any) -> Any:
    """A setting's value from JSON.

    Raises:
        InvalidArgument: it is not one.
    """
    kind, setting = described.type, described.setting
    if value is None and described.default is None:
        return None
    try:
        if Path in get_args(kind):
            return Path(msgspec.convert(value, str))
        found = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"has {described.flag} with a value that cannot be: {error}") from error
    if setting.least is not None and isinstance(found, (int, float)):
        check_range(described.flag, found, setting.least, setting.most, above=setting.above)
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
