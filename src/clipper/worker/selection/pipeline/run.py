"""One query on its way through a pipeline: answers of steps come in, and what to ask next goes out."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from clipper.errors import ModelFailed, OutputTooLarge
from clipper.settings.pipeline import CONFIDENCE, ITEM, QUERY, Graph, Node, Reference, Value, Values
from clipper.values.outputs.as_inputs import (
    MAX_LIST_BYTES,
    NULL,
    Elements,
    as_part,
    count_of,
    field_of,
    items_of,
    record_of,
    value_of,
)
from clipper.values.outputs.output import Output, TypedOutput, is_long, make_record
from clipper.values.outputs.record_columns import names_of


class WiredItems:
    """The inputs that are wired to the items of a list. Each is made when it is read."""

    def __init__(self, wired: Callable[[Output], Output], items: Elements | Sequence[Output]) -> None:
        self._wired, self._items = wired, items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Output]:
        return map(self._wired, self._items)


class Ask(NamedTuple):
    """Ask the step at this place. An input of None is the query's own row, as it came.

    ``is_long``: whether they are elements of a long output.
    """

    place: int
    inputs: Sequence[Output | None] | WiredItems
    is_long: bool = False


class Join(NamedTuple):
    """Make a list of the answers of the step at this place, which are long, and call ``joined`` or ``failed``."""

    place: int
    answers: Sequence[Output]


class Skip(NamedTuple):
    """Do not ask the step at this place: call ``skipped`` with the default of its application."""

    place: int


class Done(NamedTuple):
    """Answer the query."""

    output: Output


class Failed(NamedTuple):
    """Answer the query without an output."""

    code: str
    message: str


Decision = Ask | Join | Skip | Done | Failed


class Plan:
    """The facts that all queries of a graph share.

    Attributes:
        nodes: the steps; a step's place is its index.
        followers: by place, the places of the steps that need its output.
        needs: by place, how many steps each step needs.
        takes_row: by place, whether its input is the query's own, as it is.
        certain: the places of the steps that every query asks: they have no condition, nor need what may be skipped.
    """

    def __init__(self, graph: Graph) -> None:
        self.nodes = graph.nodes
        places = {node.name: place for place, node in enumerate(graph.nodes)}
        self.places = places
        self.followers = [
            [other for other, each in enumerate(graph.nodes) if node.name in each.after] for node in graph.nodes
        ]
        self.needs = [len(node.after) for node in graph.nodes]
        self.takes_row = [
            node.for_each is None and node.input == ((None, (Reference(QUERY),)),) for node in graph.nodes
        ]
        self.certain = frozenset[int]()
        for place, node in enumerate(graph.nodes):
            needed = [value[0].source for _, value in node.input if len(value) == 1]
            if node.when is None and all(places[each] in self.certain for each in needed if each in places):
                self.certain |= {place}
        self.output = graph.output
        self.answering = frozenset(places[name] for name in graph.answered_by)


class _Answer(NamedTuple):
    output: Output
    confidence: float


class Run:
    """The state of one query. It neither asks nor waits: ``next`` says what to do after each fact.

    Attributes:
        sources: the versions that the answers of steps came from, in the order in which they came.
    """

    def __init__(self, plan: Plan, query: Callable[[], Output]) -> None:
        """``query`` makes an output of the query's input, if a step needs more than its row."""
        self._plan, self._query = plan, query
        self._input: Output | None = None
        self._needs = list(plan.needs)
        self._ready = deque(place for place, count in enumerate(plan.needs) if not count)
        self._answers: dict[int, _Answer | None] = {}
        # The answers of a step that is asked more than once, and how many are to come.
        self._lists: dict[int, list[_Answer | None]] = {}
        self._missing: dict[int, int] = {}
        self._list_bytes: Counter[int] = Counter()
        self._to_join: deque[int] = deque()
        self._open = set(plan.answering)
        self._failure: Failed | None = None
        self._is_over = False
        self.sources: dict[str, None] = {}

    # -- facts ---------------------------------------------------------------------------------------------------

    def answered(self, place: int, index: int, output: Output, confidence: float, source: str = "") -> None:
        """Take the answer to the input at ``index``, which may be a default. ``source``: the versions that gave it."""
        answer = _Answer(output, confidence)
        if source:
            self.sources.update(dict.fromkeys(source.split(",")))
        outputs = self._lists.get(place)
        if outputs is None:
            self._settle(place, answer)
            return
        outputs[index] = answer
        self._missing[place] -= 1
        self._list_bytes[place] += len(output.data) if isinstance(output, TypedOutput) else len(output)
        if (size := self._list_bytes[place]) > MAX_LIST_BYTES:  # the list will not be made, so no more is held for it
            message = f"the answers have {size} bytes so far: expected at most {MAX_LIST_BYTES} together"
            self.failed(place, OutputTooLarge.code, message)
        elif not self._missing[place]:
            self._to_join.append(place)

    def joined(self, place: int, output: Output) -> None:
        """Take the list of a step's answers."""
        there = [each for each in self._lists.pop(place) if each is not None]
        self._settle(place, _Answer(output, min(each.confidence for each in there)))

    def skipped(self, place: int, default: Output | None) -> None:
        """Take the default of a step that is not asked; None if it has none."""
        self._settle(place, None if default is None else _Answer(default, 0.0))

    def failed(self, place: int, code: str, message: str) -> None:
        """Take the failure of a step that has no default. The first failure is the query's."""
        self._failure = self._failure or Failed(code, f"step {self._plan.nodes[place].name}: {message}")

    def _settle(self, place: int, answer: _Answer | None) -> None:
        self._answers[place] = answer
        self._open.discard(place)
        for follower in self._plan.followers[place]:
            self._needs[follower] -= 1
            if not self._needs[follower]:
                self._ready.append(follower)

    # -- decisions -----------------------------------------------------------------------------------------------

    def next(self) -> Decision | None:
        """Return what to do next; None if there is nothing to do until the next fact, or if the query is answered."""
        if self._is_over:
            return None
        if self._failure is None and self._to_join:
            place = self._to_join.popleft()
            return Join(place, [each.output for each in self._lists[place] if each is not None])
        while self._failure is None and self._ready:
            place = self._ready.popleft()
            try:
                decision = self._begin(place, self._plan.nodes[place])
            except ModelFailed as error:
                self.failed(place, error.code, str(error))
                break
            if decision is not None:
                return decision
        if self._failure is None and not self._open:
            try:
                self._is_over = True
                return Done(self._output(self._plan.output))
            except ModelFailed as error:
                self._failure = Failed(error.code, f"output: {error}")
        self._is_over = self._failure is not None
        return self._failure

    def _begin(self, place: int, node: Node) -> Ask | Skip | None:
        """Return how a step begins; None if it ends at once. Raises ModelFailed if it cannot be asked."""
        if node.when is not None:
            found = self._find(node.when.value, None)
            if not node.when.holds(None if found is None else value_of(found)):
                return Skip(place)
        if node.for_each is not None:
            return self._for_each(place, node, node.for_each)
        if self._plan.takes_row[place]:
            return Ask(place, (None,))
        whole = self._wired(node.input, None)
        return Skip(place) if whole is None else Ask(place, (whole,))

    def _for_each(self, place: int, node: Node, value: Value) -> Ask | Skip | None:
        found = self._find(value, None)
        if found is None:
            return Skip(place)
        count = count_of(found)
        items = items_of(found) if count is None or count <= node.at_most else ()
        if items is None:
            raise ModelFailed(f"{_named(value)} is no list: for_each needs an array, or a list as JSON")
        count = len(items) if count is None else count
        if count > node.at_most:
            raise ModelFailed(f"{_named(value)} has {count} elements: expected at most {node.at_most} (at_most)")
        if not items:
            self._settle(place, _Answer(b"[]", 1.0))
            return None
        self._lists[place], self._missing[place] = [None] * count, count
        inputs = WiredItems(lambda item: self._wired(node.input, item) or NULL, items)
        next(iter(inputs))  # what fails for an element of an array fails for each
        return Ask(place, inputs if isinstance(items, Elements) else list(inputs), is_long(found))

    def _wired(self, values: Values, item: Output | None) -> Output | None:
        """Return the value, or the record of values; None if a value that stands alone is missing."""
        if values[0][0] is None:
            return self._find(values[0][1], item)
        return record_of({name: self._find(value, item) for name, value in values if name is not None})

    def _output(self, values: Values) -> Output:
        if values[0][0] is None:
            found = self._find(values[0][1], None)
            return NULL if found is None else found
        parts = tuple(as_part(self._find(value, None) or NULL) for _, value in values)
        return make_record(names_of(tuple(name or "" for name, _ in values)), parts)

    def _find(self, value: Value, item: Output | None) -> Output | None:
        """Return the first of the alternatives that there is; None if there is none."""
        for reference in value:
            found = self._value(reference, item)
            if found is not None and found != NULL:
                return found
        return None

    def _value(self, reference: Reference, item: Output | None) -> Output | None:
        source, name = reference.source, reference.field
        answer: _Answer | None = None
        if source == QUERY:
            if self._input is None:
                self._input = self._query()
            output = self._input
        elif source == ITEM:
            output = NULL if item is None else item
        else:
            answer = self._answers.get(self._plan.places[source])
            if answer is None:
                return None
            output = answer.output
        if name is None:
            return output
        found = field_of(output, name)
        if found is None and name == CONFIDENCE and answer is not None:
            return f"{answer.confidence!r}".encode()
        return found


def _named(value: Value) -> str:
    return " or ".join(map(str, value))
