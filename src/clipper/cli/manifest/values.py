"""Reads a value of the file by the type of its key."""

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from clipper.cli.manifest.document import MAX_FAULTS, Entries, Fault, Items, Node, Place, Scalar, json_value
from clipper.cli.manifest.keys import FREE_TEXTS, TYPES, WITH_VARIABLES, Keys, kinds_of
from clipper.errors import InvalidArgument
from clipper.settings.fields import Described
from clipper.settings.replicas import check_replicas, read_replicas
from clipper.settings.texts import checked_resources, number_of, read_resources
from clipper.settings.variables import check_variables

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

# Stands for a value that has a fault.
INVALID: Any = object()


class Values:
    """Reads values, and collects their ``faults``. Paths are relative to ``folder``."""

    def __init__(self, folder: Path, environment: Mapping[str, str], faults: list[Fault]) -> None:
        self.folder = folder
        self.faults = faults
        self._environment = environment

    def fault(self, place: Place, path: str, text: str) -> None:
        self.faults.append(Fault(place, path, text))

    def entries(self, node: Node, path: str, what: str) -> tuple[tuple[Scalar, Node], ...]:
        """Return the entries of a mapping; none, and a fault, if it is something else. A missing value has none."""
        return node.entries if isinstance(node, Entries) else self._none_in(node, path, what)

    def items(self, node: Node, path: str, what: str) -> tuple[Node, ...]:
        return node.items if isinstance(node, Items) else self._none_in(node, path, f"a list of {what}")

    def _none_in(self, node: Node, path: str, expected: str) -> tuple[()]:
        if not (isinstance(node, Scalar) and node.is_null):
            self.fault(node.place, path, f"expected {expected}, found {_kind(node)}")
        return ()

    def settings(self, node: Node, path: str, keys: Keys, further: tuple[str, ...] = ()) -> dict[str, Any]:
        """Read the values of a mapping with these keys. Keys of ``further`` are left to the caller."""
        found: dict[str, Any] = {}
        for key, value in self.entries(node, path, "settings"):
            name, where = key.text, f"{path}.{key.text:.100}"
            if name in keys:
                read = self.value(value, where, keys[name])
                if read is not INVALID:
                    found[name] = read
            elif name not in further:
                self.unknown(key, path, (*keys, *further))
        return found

    def unknown(self, key: Scalar, path: str, known: tuple[str, ...]) -> None:
        # The search for a similar key takes milliseconds, and nobody needs it for more faults than this.
        near = get_close_matches(key.text[:100], known, 1) if len(self.faults) < MAX_FAULTS else []
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}"
        self.fault(key.place, path, f"the key {key.text!r:.100} is not known: {hint}")

    def value(self, node: Node, path: str, key: Described) -> Any:
        """Read a setting's value; ``INVALID``, and a fault, if it has none."""
        kinds = kinds_of(key.type)
        if isinstance(node, Entries) and key.keyword in TYPES:
            return self._type(node, path)
        has_names = isinstance(node, Entries) and any(get_origin(kind) is dict for kind in kinds)
        if isinstance(node, Entries) and key.setting.several:
            return self._texts(node, path, key)
        if key.type is Any or Any in kinds or has_names:
            return self._json(node, path, key)
        if isinstance(node, Scalar) and node.is_null:
            return None if NoneType in kinds else self._wrong(node, path, kinds, key)
        if isinstance(node, Items) and any(get_origin(kind) is tuple for kind in kinds):
            return tuple(self._item(item, f"{path}[{index}]", key) for index, item in enumerate(node.items))
        if not isinstance(node, Scalar):
            return self._wrong(node, path, kinds, key)
        return self._scalar(node, path, kinds, key)

    def _type(self, node: Entries, path: str) -> str:
        """Return the text of a record's type from a mapping with the type of each field."""
        return ", ".join(
            f"{json.dumps(name.text, ensure_ascii=False)}: {self.text(value, f'{path}.{name.text:.100}')}"
            for name, value in node.entries
        )

    def _texts(self, node: Entries, path: str, key: Described) -> Any:
        """Return texts by name, with the variables of this process's environment replaced in them."""
        count, found = len(self.faults), {}
        for name, value in node.entries:
            where = f"{path}.{name.text:.100}"
            if isinstance(value, Scalar) and not value.is_null:
                found[name.text] = self._expanded(value, where, key)
            else:
                found[name.text] = self.text(value, where)
            try:
                check_variables({name.text: found[name.text]}, ())
            except InvalidArgument as error:
                self.fault(name.place, where, str(error))
        return found if len(self.faults) == count else INVALID

    def text(self, node: Node, path: str) -> str:
        """Read a text as it stands in the file, in quotes or not; empty, and a fault, if it is something else."""
        if isinstance(node, Scalar) and not node.is_null:
            return node.text
        self.fault(node.place, path, f"expected a text, found {_kind(node)}")
        return ""

    def _item(self, node: Node, path: str, key: Described) -> str:
        count, text = len(self.faults), self.text(node, path)
        if key.setting.read is not None and len(self.faults) == count:
            try:
                key.setting.read(text)
            except InvalidArgument as error:
                self.fault(node.place, path, str(error))
        return text

    def _json(self, node: Node, path: str, key: Described) -> Any:
        count = len(self.faults)
        read = json_value(node, self.faults, path)
        if len(self.faults) > count:
            return INVALID
        try:
            return checked_resources(read) if key.setting.read is read_resources else read
        except InvalidArgument as error:
            self.fault(node.place, path, str(error))
            return INVALID

    def _scalar(self, node: Scalar, path: str, kinds: tuple[Any, ...], key: Described) -> Any:
        setting = key.setting
        try:
            read = setting.read(node.text) if setting.read is not None else self._typed(node, path, kinds, key)
            if read is INVALID:
                return read
            setting.check("it", read)
            if setting.read is read_replicas:
                check_replicas(read)
        except InvalidArgument as error:
            self.fault(node.place, path, str(error))
            return INVALID
        return read

    def _typed(self, node: Scalar, path: str, kinds: tuple[Any, ...], key: Described) -> Any:
        text = node.text
        for kind in kinds:
            if kind is bool and node.is_plain and text in ("true", "false"):
                return text == "true"
            if kind in (int, float) and node.is_plain and (number := number_of(kind, text)) is not None:
                return number
            if get_origin(kind) is Literal and text in get_args(kind):
                return text
            if kind is Path:
                return self.folder / self._expanded(node, path, key)
            if kind is str:
                return self._expanded(node, path, key)
        return self._wrong(node, path, kinds, key)

    def _expanded(self, node: Scalar, path: str, key: Described) -> str:
        """Return the text, with its variables replaced where it may hold a secret."""
        if key.keyword in FREE_TEXTS:
            return node.text
        if key.keyword not in WITH_VARIABLES:
            if _VARIABLE.search(node.text):
                self.fault(
                    node.place,
                    path,
                    "variables of the environment are for server.store, env and from_env alone",
                )
            return node.text
        return _VARIABLE.sub(lambda match: self.variable(match[1], node.place, path), node.text)

    def variable(self, name: str, place: Place, path: str) -> str:
        """Return the value of a variable; empty, and a fault, if there is none. No message contains a value."""
        value = self._environment.get(name, "")
        if not value:
            # A name that is not like a variable's may be the secret itself.
            shown = f" {name:.100}" if name.isupper() else " of this name"
            self.fault(place, path, f"the environment has no variable{shown}: set it")
        return value

    def _wrong(self, node: Node, path: str, kinds: tuple[Any, ...], key: Described) -> Any:
        expected = " or ".join(dict.fromkeys(_described(kind, key) for kind in kinds if kind is not NoneType))
        null = ", or null" if NoneType in kinds else ""
        self.fault(node.place, path, f"expected {expected}{null}, found {_kind(node)}")
        return INVALID


def _described(kind: Any, key: Described) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a list of texts"
    if get_origin(kind) is dict:
        return "names with values"
    if kind in (int, float) and key.setting.least is not None:
        least, most = key.setting.least, key.setting.most
        return f"a number from {least:g}" + (f" to {most:.16g}" if most is not None else "")
    return {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}.get(kind, "a text")


def _kind(node: Node) -> str:
    if isinstance(node, Entries):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    if node.is_null:
        return "nothing"
    return repr(node.text[:100]) if node.is_plain else f"the text {node.text[:100]!r}"
