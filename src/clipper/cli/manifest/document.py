"""Reads YAML into a tree whose nodes know their line and column, and refuses whatever has more than one meaning.

A scalar stays the text that is in the file: its reader knows the expected type. So ``python: 3.10`` is not 3.1, and a
model may be called ``no``. ``json_value`` reads a scalar of any type.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

# A file of 1,000 models has about 300 KB; a sample of an image is 1 MB.
MAX_BYTES = 4 * 1024 * 1024
# Levels of nested mappings and sequences. A tensor of 8 dimensions is within 4 others.
MAX_DEPTH = 32
# A tree of this many nodes takes about 100 MB.
MAX_NODES = 500_000
# Readers need no more faults, and a file of another format may have one in each line.
MAX_FAULTS = 50

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
# Scalars that are numbers in some versions of YAML and texts in others. PyYAML's resolver does not distinguish them.
_AMBIGUOUS = re.compile(r"[-+]?0[0-9][0-9.]*|0o[0-7]+")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
# JSON's numbers are taken as 64 bits.
_MOST_INT, _LEAST_INT = 2**64 - 1, -(2**63)
_RESOLVER: Any = yaml.resolver.Resolver()


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in the file; both numbers begin with 1."""

    line: int
    column: int


START = Place(1, 1)


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A fault in the file. ``path`` names the value, such as ``models.digits.replicas``; empty for the whole file."""

    place: Place
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.place.line}:{self.place.column}: " + (f"{self.path}: " if self.path else "") + self.text


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar. ``is_plain``: whether it is written without quotes."""

    text: str
    is_plain: bool
    place: Place

    @property
    def is_null(self) -> bool:
        return self.is_plain and self.text in _NULL


@dataclass(frozen=True, slots=True)
class Items:
    items: tuple["Node", ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping. Keys are unique, as long as the document has no faults."""

    entries: tuple[tuple[Scalar, "Node"], ...]
    place: Place


Node = Scalar | Items | Entries


def read_document(content: bytes) -> tuple[Node | None, list[Fault]]:
    """Return the tree, or None if there is none, and the faults."""
    if len(content) > MAX_BYTES:
        return None, [Fault(START, "", f"the file is too long: expected at most {MAX_BYTES} bytes")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return None, [Fault(Place(line, 1), "", "the file is not a text in UTF-8")]
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            reader.take(event)
    except _Refused as error:
        return None, [*reader.faults, Fault(error.place, "", str(error))]
    except yaml.MarkedYAMLError as error:
        return None, [*reader.faults, _syntax_fault(error, text)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = error.character if isinstance(error.character, int) else ord(error.character)
        return None, [Fault(Place(line, 1), "", f"the character U+{character:04X} is not allowed in YAML")]
    if reader.root is None or (isinstance(reader.root, Scalar) and reader.root.is_null):
        return None, [*reader.faults, Fault(START, "", "the file is empty: expected server, models, applications")]
    return reader.root, reader.faults


class _Refused(Exception):
    def __init__(self, text: str, place: Place) -> None:
        super().__init__(text)
        self.place = place


class _Reader:
    """Makes a tree of YAML's events. It has its own stack instead of recursion, and expands nothing."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.faults: list[Fault] = []
        self._documents = 0
        self._nodes = 0
        # A stack of the open nodes: for each its place, whether it is a mapping, and its children so far.
        self._open: list[tuple[Place, bool, list[Node]]] = []

    def take(self, event: Any) -> None:
        place = Place(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _Refused("a second document begins here: expected one in a file", place)
        elif isinstance(event, yaml.AliasEvent):
            self._fault(place, f"the alias *{event.anchor} is not allowed: write the value again")
            self._add(Scalar("", False, place))
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event, place)
            self._add(Scalar(event.value, event.style is None or event.style == "", place))
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event, place)
            if len(self._open) == MAX_DEPTH:
                raise _Refused(f"expected at most {MAX_DEPTH} mappings and lists within each other", place)
            self._open.append((place, isinstance(event, yaml.MappingStartEvent), []))
        elif isinstance(event, yaml.CollectionEndEvent):
            begin, is_mapping, nodes = self._open.pop()
            self._add(self._mapping(begin, nodes) if is_mapping else Items(tuple(nodes), begin))

    def _add(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Refused(f"expected at most {MAX_NODES} values in a file", node.place)
        if self._open:
            self._open[-1][2].append(node)
        else:
            self.root = node

    def _mapping(self, place: Place, nodes: list[Node]) -> Entries:
        """Make a mapping. ``nodes`` are keys and values in turn."""
        entries: dict[str, tuple[Scalar, Node]] = {}
        for key, value in zip(nodes[::2], nodes[1::2]):
            if not isinstance(key, Scalar):
                self._fault(key.place, "a mapping or list cannot be a key: expected a name")
            elif key.text in entries:
                first = entries[key.text][0].place.line
                self._fault(key.place, f"the key {key.text!r:.100} is in line {first} already: expected each key once")
            else:
                entries[key.text] = (key, value)
        return Entries(tuple(entries.values()), place)

    def _check_tag(self, event: Any, place: Place) -> None:
        if event.tag is not None:
            self._fault(place, f"the tag {event.tag!r:.100} is not allowed: write the value without it")

    def _fault(self, place: Place, text: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(place, "", text))


def _syntax_fault(error: yaml.MarkedYAMLError, text: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Fault(START, "", f"this is not YAML: {error.problem}")
    line = text.splitlines()[mark.line : mark.line + 1]
    is_tab = line and "\t" in line[0][: mark.column + 1]
    problem = (
        "a tab is before it: indent with spaces" if is_tab else " ".join(filter(None, [error.context, error.problem]))
    )
    return Fault(Place(mark.line + 1, mark.column + 1), "", f"this is not YAML: {problem}")


def json_value(node: Node, faults: list[Fault], path: str) -> Any:
    """Read a node of any type as JSON: null, a bool, number, text, list or dict. Faults are added to ``faults``."""
    if isinstance(node, Items):
        return [json_value(item, faults, f"{path}[{index}]") for index, item in enumerate(node.items)]
    if isinstance(node, Entries):
        return {key.text: json_value(value, faults, f"{path}.{key.text:.100}") for key, value in node.entries}
    text = node.text
    if not node.is_plain:
        return text
    if text in _NULL:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _FLOAT.fullmatch(text):
        # Python refuses to parse much longer numbers, with an error of its own.
        number = (int(text) if len(text) < 25 else math.inf) if _INT.fullmatch(text) else float(text)
        if math.isfinite(number) and (isinstance(number, float) or _LEAST_INT <= number <= _MOST_INT):
            return number
        faults.append(Fault(node.place, path, f"the number {text:.50} is too large: JSON has numbers of 64 bits"))
    elif _NOT_FINITE.fullmatch(text):
        faults.append(Fault(node.place, path, f"{text} is not a number in JSON: expected a finite one"))
    elif _AMBIGUOUS.fullmatch(text) or _resolved(text) != "tag:yaml.org,2002:str":
        faults.append(
            Fault(node.place, path, f"{text:.50} is not a text in every version of YAML: put it in quotes if it is one")
        )
    return text


def _resolved(text: str) -> str:
    """Return the type that YAML 1.1 gives a plain scalar. Only short scalars have a type other than text."""
    return str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False))) if len(text) < 100 else "tag:yaml.org,2002:str"


def lines_of(faults: list[Fault]) -> Iterator[str]:
    """Return the faults as lines, in the file's order, at most ``MAX_FAULTS``."""
    ordered = sorted(set(faults))
    yield from map(str, ordered[:MAX_FAULTS])
    if len(ordered) > MAX_FAULTS:
        yield f"and {len(ordered) - MAX_FAULTS} more"
