"""Writes the tables of ``definitions`` as Prometheus text, which is kept until the values change."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Generic, TypeVar

from prometheus_client.utils import floatToGoString

from clipper.control.statistics import HistogramData
from clipper.supervisor.metrics.definitions import Group, Histogram, Metric

K = TypeVar("K")
T = TypeVar("T")
Labels = tuple[str, ...]
# The things of a group that a thing has, each with the values of its labels.
Rows = Sequence[tuple[Labels, Any]]
NAN = float("nan")
_of_float: Callable[[float], str] = floatToGoString


class Table(Generic[K, T]):
    """The text of things that have rows in some groups, by their keys."""

    def __init__(
        self, groups: Sequence[Group[Any]], rows: Callable[[Labels, T], Sequence[Rows]], *more_labels: str
    ) -> None:
        """Make a table without things.

        Args:
            rows: returns what a thing has in each group, from the values of its labels.
            more_labels: labels that stand after those of each group.
        """
        self._rows = rows
        self._groups = [_Group(group, more_labels) for group in groups]
        self._heads = [family.head for group in self._groups for family in group.families]
        self._text: dict[K, tuple[bytes, ...]] = {}
        self._things: dict[K, T] = {}

    def write(self, key: K, labels: Labels, thing: T) -> None:
        rows = self._rows(labels, thing)
        self._text[key] = tuple(text for group, of in zip(self._groups, rows) for text in group.text(of))

    def follow(self, key: K, labels: Labels, thing: T) -> None:
        """Write the text of a thing, unless it stands already. The thing is kept to compare."""
        if self._things.get(key) != thing:
            self._things[key] = thing
            self.write(key, labels, thing)

    def drop(self, key: K) -> None:
        self._text.pop(key, None)
        self._things.pop(key, None)

    def keep(self, keys: Mapping[K, object]) -> None:
        """Drop all other things."""
        for key in self._text.keys() - keys.keys():
            self.drop(key)

    def text(self, keys: Iterable[K]) -> list[bytes]:
        """Return the text of these things, in pieces, with the heads of all metrics. Not all things need have text."""
        things = [text for key in keys if (text := self._text.get(key)) is not None]
        pieces: list[bytes] = []
        for place, head in enumerate(self._heads):
            pieces.append(head)
            pieces += [text[place] for text in things]
        return pieces


class _Group:
    def __init__(self, group: Group[Any], more_labels: Labels) -> None:
        labels = (*group.labels, *more_labels)
        # Sorted by name, like the client library's output, except for the labels that differ within a thing.
        self._labels = sorted((name, place) for place, name in enumerate(labels))
        self.families = [_Family(metric) for metric in group.metrics]

    def text(self, rows: Rows) -> list[bytes]:
        written = [
            (",".join([f'{name}="{_escaped(values[place])}"' for name, place in self._labels]), thing)
            for values, thing in rows
        ]
        return [
            "".join([family.text(labels, thing) for labels, thing in written]).encode("utf-8", "backslashreplace")
            for family in self.families
        ]


class _Family:
    """A metric's name and text."""

    def __init__(self, metric: Metric[Any]) -> None:
        kind, self.text = "histogram", self._histogram
        if isinstance(metric, Histogram):
            self._ends = [f',le="{end}"}} ' for end in (*map(_of_float, metric.bounds), "+Inf")]
        else:
            kind, self.text, self._extra = metric.kind, self._number, metric.extra
        self._name = f"{metric.name}_total" if kind == "counter" else metric.name
        self.head = f"# HELP {self._name} {metric.help}\n# TYPE {self._name} {kind}\n".encode()
        self._read: Callable[[Any], Any] = metric.read

    def _number(self, labels: str, thing: Any) -> str:
        number = self._read(thing)
        if isinstance(number, Mapping):
            before = f"{self._name}{{{labels}{',' if labels else ''}{self._extra}="
            return "".join([f'{before}"{_escaped(key)}"}} {_shown(value)}\n' for key, value in sorted(number.items())])
        name = f"{self._name}{{{labels}}}" if labels else self._name
        return f"{name} {_shown(NAN if number is None else number)}\n"

    def _histogram(self, labels: str, thing: Any) -> str:
        data: HistogramData = self._read(thing)
        # Cumulative counts, as the format requires.
        counts = [*map(_shown, accumulate(data.counts))] or ["0.0"]
        before = f"{self._name}_bucket{{{labels}"
        buckets = "".join([f"{before}{end}{count}\n" for end, count in zip(self._ends, counts)])
        ends = f"{self._name}_count{{{labels}}} {counts[-1]}\n{self._name}_sum{{{labels}}} {_shown(data.sum)}\n"
        return buckets + ends


def _shown(number: float) -> str:
    return f"{number}.0" if type(number) is int and 0 <= number < 1_000_000 else _of_float(number)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
