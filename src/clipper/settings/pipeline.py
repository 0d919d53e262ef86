"""A pipeline: an application whose answer is made from the answers of other applications, its steps.

A step's input, its condition and the pipeline's output refer to values by short texts:

- ``query`` is the query's input, and ``query.age`` a field of it if it is a record;
- ``gate`` is the output of the step ``gate``, ``gate.label`` one of its named values, and ``gate.confidence`` the
  answer's confidence, unless the output has a value of that name;
- ``item`` is the element of ``for_each`` that a row is about, and ``item.box`` a field of it;
- ``dear or cheap`` is the first of these that there is.

A condition compares one such value with JSON: ``gate.confidence < 0.8``, ``language.label == "de"``.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from clipper.errors import InvalidArgument
from clipper.settings.fields import Setting, check_ranges
from clipper.values.decoding import NOT_JSON

# A query asks each of these at least once. The longest published pipelines have a dozen.
MAX_STEPS = 32
# The most rows that one query may make of a list. They share batches with other queries' rows, which wait for them.
MAX_ITEMS = 1000
# Longer than the names of a field and its step together.
MAX_REFERENCE_CHARACTERS = 1000

QUERY, ITEM, CONFIDENCE = "query", "item", "confidence"
_STEP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_CONDITION = re.compile(r"(.+?)\s*(<=|>=|==|!=|<|>)\s*(.+)", re.DOTALL)
_OR = re.compile(r"\s+or\s+")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
# A value, or the value of each name of a record.
Wiring = str | dict[str, str]


class Step(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A step of a pipeline: the application that it asks, and with what."""

    application: Annotated[
        str | None, Setting("The application that the step asks.", default="PIPELINE.STEP", metavar="NAME")
    ] = None
    input: Annotated[Wiring, Setting("The value that is its input, or a value for each field of a record.")] = QUERY
    when: Annotated[
        str | None, Setting("Skip the step unless this comparison holds, e.g. gate.confidence < 0.8.", default="always")
    ] = None
    for_each: Annotated[
        str | None,
        Setting(
            "A list: the step is asked for each item of it, and its output is the list of the answers.", default="none"
        ),
    ] = None
    at_most: Annotated[
        int,
        Setting("The most items of that list; with a longer list the step fails.", least=1, most=MAX_ITEMS),
    ] = 100


@dataclass(frozen=True, slots=True)
class Reference:
    """A value of a query: ``source`` is ``query``, ``item`` or a step; ``field`` is None for all of it."""

    source: str
    field: str | None = None

    def __str__(self) -> str:
        return self.source if self.field is None else f"{self.source}.{self.field}"


# The first of these that there is.
Value = tuple[Reference, ...]
# The value of each name; the name is None for a value that stands alone.
Values = tuple[tuple[str | None, Value], ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a value with a constant, which is a number, a text, true, false or null."""

    value: Value
    operator: str
    constant: Any

    def holds(self, found: Any) -> bool:
        """Return whether the comparison holds for this value; False if the value cannot be compared in this way."""
        is_equality = self.operator in ("==", "!=")
        # In Python, True equals 1; here a truth value is not a number.
        if isinstance(found, bool) != isinstance(self.constant, bool) and is_equality:
            return self.operator == "!="
        try:
            return bool(_OPERATORS[self.operator](found, self.constant))
        except TypeError:
            return False


@dataclass(frozen=True, slots=True)
class Node:
    """A step in its place. ``after``: the steps whose outputs it needs."""

    name: str
    application: str
    input: Values
    when: Condition | None
    for_each: Value | None
    at_most: int
    after: frozenset[str]


@dataclass(frozen=True, slots=True)
class Graph:
    """The steps of a pipeline, each after the steps that it needs; and the values that the answer is made of."""

    nodes: tuple[Node, ...]
    output: Values

    @property
    def answered_by(self) -> frozenset[str]:
        """The steps that the output refers to."""
        return frozenset(_sources(self.output))


def read_graph(pipeline: str, steps: Mapping[str, Step], output: Wiring | None) -> Graph:
    """Read the steps of a pipeline. An ``output`` of None is that of the last step.

    Raises InvalidArgument for a name, a reference or a condition that is not valid, a circle, or a step that nothing
    uses. The message begins with the place, such as ``steps.gate.when``.
    """
    if not 1 <= len(steps) <= MAX_STEPS:
        raise InvalidArgument(f"steps: there are {len(steps)}: expected 1 to {MAX_STEPS}")
    for name in steps:
        if not _STEP_NAME.fullmatch(name) or name in (QUERY, ITEM):
            raise InvalidArgument(
                f"steps: {name!r:.100} cannot be a step's name: expected a letter, then letters, digits, '-' and '_', "
                f"and neither {QUERY} nor {ITEM}"
            )
    nodes = {name: _node(pipeline, name, step, frozenset(steps)) for name, step in steps.items()}
    answer = _values("output", list(steps)[-1] if output is None else output, frozenset(steps))
    ordered = _ordered(nodes)
    used = {*_sources(answer), *(source for node in ordered for source in node.after)}
    for name in steps:
        if name not in used:
            raise InvalidArgument(f"steps.{name}: nothing uses its output: name it in output, or leave the step out")
    return Graph(ordered, answer)


def _node(pipeline: str, name: str, step: Step, names: frozenset[str]) -> Node:
    at, others = f"steps.{name}", names - {name}
    try:
        check_ranges(step)
    except InvalidArgument as error:
        raise InvalidArgument(f"{at}.{error}") from None
    for_each = None if step.for_each is None else _value(f"{at}.for_each", step.for_each, others)
    wired = _values(f"{at}.input", step.input, others if for_each is None else others | {ITEM})
    when = None if step.when is None else _condition(f"{at}.when", step.when, others)
    after = {*_sources(wired), *_sources(((None, for_each or ()), (None, when.value if when else ())))}
    return Node(name, step.application or f"{pipeline}.{name}", wired, when, for_each, step.at_most, frozenset(after))


def _values(at: str, wiring: Wiring, names: frozenset[str]) -> Values:
    if isinstance(wiring, str):
        return ((None, _value(at, wiring, names)),)
    if not wiring:
        raise InvalidArgument(f"{at}: expected a value, or a value for each name")
    return tuple((name, _value(f"{at}.{name}", text, names)) for name, text in wiring.items())


def _value(at: str, text: str, names: frozenset[str]) -> Value:
    return tuple(_reference(at, part.strip(), names) for part in _OR.split(_bounded(at, text)))


def _bounded(at: str, text: str) -> str:
    if len(text) > MAX_REFERENCE_CHARACTERS:
        raise InvalidArgument(f"{at}: it has {len(text)} characters: expected at most {MAX_REFERENCE_CHARACTERS}")
    return text


def _reference(at: str, text: str, names: frozenset[str]) -> Reference:
    source, dot, field = text.partition(".")
    if source == ITEM and ITEM not in names:
        raise InvalidArgument(f"{at}: {ITEM} is an element of for_each, which is not here: expected {_known(names)}")
    if (source != QUERY and source not in names) or (dot and not field):
        raise InvalidArgument(f"{at}: {text!r:.100} is not known: expected {_known(names)}, perhaps with .FIELD")
    return Reference(source, field if dot else None)


def _known(names: frozenset[str]) -> str:
    return ", ".join((QUERY, *sorted(names)))


def _condition(at: str, text: str, names: frozenset[str]) -> Condition:
    found = _CONDITION.fullmatch(_bounded(at, text).strip())
    if found is None:
        raise InvalidArgument(
            f"{at}: {text!r:.100} is not a comparison: expected e.g. gate.confidence < 0.8, with one of "
            f"{' '.join(_OPERATORS)}"
        )
    reference, compared, constant = found.groups()
    try:
        value = msgspec.json.decode(constant)
    except NOT_JSON:
        value = ()
    if not isinstance(value, str | int | float | None):
        raise InvalidArgument(
            f'{at}: {constant!r:.100} is not a constant: expected a number, a text in quotes such as "de", true, false '
            "or null"
        )
    if compared not in ("==", "!=") and (value is None or isinstance(value, bool)):
        raise InvalidArgument(f"{at}: {constant} is neither more nor less than a value: compare it with == or !=")
    return Condition(_value(at, reference, names), compared, value)


def _sources(values: Values) -> Iterator[str]:
    for _, value in values:
        for reference in value:
            if reference.source not in (QUERY, ITEM):
                yield reference.source


def _ordered(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    """Return the steps, each after those that it needs. Raises InvalidArgument if steps need each other in a circle."""
    left, ordered = dict(nodes), list[Node]()
    while left:
        ready = [node for node in left.values() if not node.after & left.keys()]
        if not ready:
            circle = [next(iter(left))]
            while circle[-1] not in circle[:-1]:
                circle.append(min(left[circle[-1]].after & left.keys()))
            circle = circle[circle.index(circle[-1]) :]
            raise InvalidArgument(f"steps.{circle[0]}: steps need each other in a circle: {' needs '.join(circle)}")
        ordered += ready
        for node in ready:
            del left[node.name]
    return tuple(ordered)
