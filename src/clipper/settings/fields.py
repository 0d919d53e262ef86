"""Settings: fields of a struct that describe themselves.

A setting is a field with a ``Setting`` beside its type::

    cpus: Annotated[float | None, Setting("How many processors each replica may use.", least=0.01, most=1024)] = None

The command line makes an option from each setting (``cli/settings.py``), the server checks its range
(``check_ranges``), and tests compare the documentation and the Python client's keywords with it. A field without a
``Setting``, such as an artifact's digest, is for programs alone.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import FieldInfo

from clipper.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Setting:
    """
    Attributes:
        help: one sentence that explains the setting.
        least, most: the range of a number; None means no bound.
        above: True if ``least`` itself is out of range.
        keyword: its name in the Python client; None means the field's name. A field of a nested struct may need a
            keyword of its own.
        option: its name on the command line; None means the keyword, and an empty text that it has no option. For a
            bool it names a single option that inverts the default, like ``no-cache``; without it there are two options,
            such as ``--calibrate`` and its opposite.
        metavar: the placeholder for its value in a command's help.
        default: the text that describes the default in that help, if the value itself does not.
        environment: the variable that the command line reads if the option is not given.
        read: turns a text of the command line into a value, and raises InvalidArgument; None reads by the type. For a
            setting with several values, it reads each value.
        several: whether an option of a mapping may be repeated: ``read`` turns each text into a part of the mapping.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: bool = False
    keyword: str | None = None
    option: str | None = None
    metavar: str | None = None
    default: str | None = None
    environment: str | None = None
    read: Callable[[str], Any] | None = None
    several: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise InvalidArgument if the value is a number out of range; the message calls it ``name``."""
        if self.least is not None and isinstance(value, (int, float)):
            check_range(name, value, self.least, self.most, above=self.above)


class Described(NamedTuple):
    """A field and its setting.

    Attributes:
        keyword: its name in clients.
        type: the type of a given value.
        default: NODEFAULT if it has none.
    """

    name: str
    keyword: str
    type: Any
    default: Any
    setting: Setting

    @property
    def flag(self) -> str:
        """The setting's name on the command line, with dashes."""
        return "--" + (self.setting.option or self.keyword.replace("_", "-"))


def settings_of(kind: type[Struct]) -> Iterator[Described]:
    """Return a struct's own settings, then inherited ones. A nested struct, ``Batching``, stands for its settings."""
    order = list(dict.fromkeys(name for owner in kind.__mro__ for name in inspect.get_annotations(owner)))
    for field in sorted(msgspec.structs.fields(kind), key=lambda field: order.index(field.name)):
        bare, setting = _type_and_setting(field)
        if setting is not None:
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            yield Described(field.name, setting.keyword or field.name, bare, default, setting)
        elif isinstance(bare, type) and issubclass(bare, Struct):
            yield from settings_of(bare)


def shared(source: Struct, kind: type[Struct]) -> dict[str, Any]:
    """Return the values of the fields of ``source`` that ``kind`` has too."""
    return {name: getattr(source, name) for name in source.__struct_fields__ if name in kind.__struct_fields__}


def changes_of(kind: type[Struct]) -> Any:
    """Make the base class of a change: a struct with the fields of ``kind``, each of which may be absent."""
    fields: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(kind):
        bare, setting = _type_and_setting(field)
        fields.append((field.name, Annotated[bare | UnsetType, setting], UNSET))
    return msgspec.defstruct(f"ChangesOf{kind.__name__}", fields, frozen=True, kw_only=True, forbid_unknown_fields=True)


def given(change: Struct) -> dict[str, Any]:
    """Return the fields of a change that are not absent."""
    return {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not UNSET}


def check_ranges(values: Struct) -> None:
    """Raise InvalidArgument if a number is out of its setting's range."""
    for field in msgspec.structs.fields(type(values)):
        value, (_, setting) = getattr(values, field.name), _type_and_setting(field)
        if setting is None and isinstance(value, Struct):
            check_ranges(value)
        elif setting is not None:
            setting.check(setting.keyword or field.name, value)


def check_range(name: str, value: float, least: float, most: float | None = None, *, above: bool = False) -> None:
    """Raise InvalidArgument if ``value`` is not a number from ``least`` (or above ``least``) to ``most``."""
    end = math.inf if most is None else most
    # bool is a subclass of int in Python; a setting does not take it for a number.
    if not isinstance(value, bool) and (least < value <= end if above else least <= value <= end):
        return
    raise InvalidArgument(f"{name} is {value!r:.30}: expected a number {range_text(least, most, above=above)}")


def range_text(least: float, most: float | None = None, *, above: bool = False) -> str:
    """Return the range as words that follow "a number"."""
    text = f"above {least:.16g}" if above else f"from {least:.16g}"
    if most is None:
        return text
    return text + (f", at most {most:.16g}" if above else f" to {most:.16g}")


def _type_and_setting(field: FieldInfo) -> tuple[Any, Setting | None]:
    """Return a field's type without UnsetType, and its setting if it has one."""
    bare, *notes = get_args(field.type) if get_origin(field.type) is Annotated else (field.type,)
    kinds = get_args(bare)
    if UnsetType in kinds:
        bare = Union[tuple(kind for kind in kinds if kind is not UnsetType)]  # noqa: UP007
    return bare, next((note for note in notes if isinstance(note, Setting)), None)
